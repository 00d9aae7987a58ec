"""What is measured beside the norms, now and then: when, and what it cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from torch import Tensor

from gradwatch.console import say
from gradwatch.device_recorder import is_captured
from gradwatch.measure import magnitude, update_ratio, weight_norm
from gradwatch.measure.budget import Budget, Price
from gradwatch.measure.device_time import DeviceTime
from gradwatch.measure.layer_coefficient import layer_coefficients
from gradwatch.measure.rotation import Batch, Rotation, Turns
from gradwatch.measure.sample import Metric, Sample
from gradwatch.measure.update_ratio import UpdateRatio

if TYPE_CHECKING:
    from gradwatch.clipping.strategy import Decision, Gradients

_WARM_UP: Final = 5  # steps that earn nothing: they compile, allocate and read from the disk for the first time
_EVERY: Final = 10  # steps from one sample to the next, at least
_PATIENCE: Final = 16  # clips without any of its layers until an update ratio is given up
_SAVED_SECONDS: Final = 0.05  # saved up at most, over a validation or a checkpoint for example
_SAVED_BYTES: Final = 1 << 20  # likewise; there from the start, so that short runs are sampled densely
_NORM_BYTES: Final = 4  # of a layer in each step's row; samples get as much, so that they at most double a recording


@dataclass(slots=True, eq=False)
class _Pending:
    """An update ratio between its two clips."""

    ratio: UpdateRatio
    step: int
    rows: list[int]
    waited: int = 0


@dataclass(slots=True, eq=False)
class _Bill:
    """A sample whose price is not known yet."""

    turns: Turns
    units: float
    host_seconds: float = 0.0


class Sampler:
    """Samples weight norms, update ratios, layer coefficients and histograms within ``budget``, a share of step time.

    The metrics take turns, every tenth step at the earliest, and within each metric the layers that have a gradient
    take turns: a sample holds as many as the time in hand pays for (see Budget), one at least, all on one device. Time
    counts on the host and, with CUDA, on the device as well; the two overlap, so it is rather overstated. On long runs
    a second bucket, of bytes, keeps samples from recording more than the norms do. There is no floor: a layer that
    costs more than the budget earns in a while is paid back before anything else is sampled.

    Layer coefficients are sampled only of strategies that have a factor for each layer; on the CPU, where asking costs
    nothing, at a clip event too, once between two of their turns.

    It only reads gradients and weights, draws no random numbers, waits for no device and raises nothing: a metric that
    fails is left out from then on, and one console line says so. Inside a captured CUDA graph nothing is sampled.

    ``layers_recorded``: for each row of the layer table the layer (its place among all layers of the monitor) that it
    records; empty where rows are modules. ``send`` takes the samples, in the training thread. ``place``: the place of
    each parameter by its ``id``; where some layers have no gradient and lie on another device than the CPU, nothing is
    sampled without it. Raises ValueError unless ``budget`` is at least 0 and below 1.
    """

    def __init__(
        self,
        layers_recorded: Sequence[int],
        budget: float = 0.01,
        send: Callable[[Sample], None] = lambda sample: None,
        place: Mapping[int, int] | None = None,
    ) -> None:
        if not 0 <= budget < 1:
            raise ValueError(f"the budget is a share of step time, such as 0.01, not {budget!r}; 0 samples nothing")
        self._send = send
        self._rotation = Rotation(layers_recorded, place)
        self._time = Budget(budget, _SAVED_SECONDS)
        self._bytes = Budget(_NORM_BYTES * len(layers_recorded), _SAVED_BYTES, _SAVED_BYTES)
        self._bytes_step = 0
        self._device_time = DeviceTime()
        self._turns = _all_turns()
        self._turn = 0
        self._has_factors = False
        self._event_taken = False
        self._steps = 0
        self._due: float = _WARM_UP if len(layers_recorded) and budget else math.inf
        self._needed = 0.0
        self._earned_at: float | None = None
        self._pending: _Pending | None = None
        self._bill: _Bill | None = None

    def step(self, gradients: Gradients, decision: Decision) -> float:
        """To be called at every clip, once it is decided and before any gradient is changed, without grad mode.

        Returns the seconds that sampling took: on the host in this step, and on the device for the sample before, which
        only now is known.
        """
        self._steps += 1
        due = self._steps >= self._due
        if not due and self._pending is None and (decision.factors is None or not self._is_event(decision)):
            return 0.0
        now = time.perf_counter()
        if self._earned_at is None:
            self._earned_at, self._due = now, self._steps + _EVERY
            return 0.0
        in_hand = self._time.earn(now - self._earned_at)
        self._earned_at = now
        if in_hand < self._needed and self._pending is None:
            return 0.0
        device_seconds = 0.0
        try:
            device_seconds = self._act(gradients, decision, due)
        except Exception as error:
            self._leave_out(error)
        seconds = time.perf_counter() - now
        self._time.spend(seconds)
        if self._bill is not None:
            self._bill.host_seconds += seconds
        return seconds + device_seconds

    def close(self) -> None:
        """Sample nothing any more, and let go of copied weights."""
        self._due = math.inf
        self._pending = None

    def _is_event(self, decision: Decision) -> bool:
        self._has_factors = True
        return decision.clipped is True and not self._event_taken and self._steps > _WARM_UP and self._due < math.inf

    def _act(self, gradients: Gradients, decision: Decision, due: bool) -> float:
        """One piece of work at most. Returns the seconds of device work that have become known."""
        if not gradients.tensors:
            return 0.0
        if is_captured(gradients.tensors[0].device):
            self._pending = None
            return 0.0
        if self._pending is not None:
            self._finish(self._pending, gradients)
            return 0.0
        device_seconds = self._settle()
        if device_seconds is None:
            return 0.0
        if due:
            self._take_turn(gradients, decision)
        else:
            self._take_event(gradients, decision)
        return device_seconds

    def _settle(self) -> float | None:
        """Pay for what the device did, and learn the price of the last sample; None while the device is at it."""
        seconds = self._device_time.take()
        if seconds is None:
            return None
        self._time.spend(seconds)
        if self._bill is not None:
            self._bill.turns.price.learn(self._bill.units, self._bill.host_seconds + seconds)
            self._bill = None
        return seconds

    def _take_turn(self, gradients: Gradients, decision: Decision) -> None:
        self._due, self._needed = self._steps + _EVERY, 0.0
        candidates = [turns for turns in self._turns if turns.metric != "layer_coefficient" or self._has_factors]
        if not candidates:
            return
        turns = candidates[self._turn % len(candidates)]
        batch = self._next_batch(turns, gradients)
        if batch is not None:
            price = turns.price.of(batch.units)
            if not self._time.affords(price):
                self._due, self._needed = self._steps, min(price, self._time.capacity)
                return
            self._measure(turns, batch, gradients, decision)
        self._turn += 1
        if self._turn % len(candidates) == 0:
            self._due += 1  # so that a metric does not for ever meet the same of several optimizers that take turns
        if turns.metric == "layer_coefficient":
            self._event_taken = False

    def _take_event(self, gradients: Gradients, decision: Decision) -> None:
        self._event_taken = True
        for turns in self._turns:
            if turns.metric == "layer_coefficient":
                batch = self._next_batch(turns, gradients)
                if batch is not None and self._time.affords(turns.price.of(batch.units)):
                    self._measure(turns, batch, gradients, decision)

    def _next_batch(self, turns: Turns, gradients: Gradients) -> Batch | None:
        self._bytes.earn(self._steps - self._bytes_step)
        self._bytes_step = self._steps
        most_rows = int(self._bytes.in_hand // turns.row_bytes)
        if most_rows < 1:
            return None
        return self._rotation.batch(turns, gradients, self._time.in_hand / turns.price.per_unit, most_rows)

    def _measure(self, turns: Turns, batch: Batch, gradients: Gradients, decision: Decision) -> None:
        self._bill = _Bill(turns, batch.units)
        self._bytes.spend(turns.row_bytes * len(batch.rows))
        turns.took(batch.rows)
        weights = [gradients.parameters[index] for index in batch.indices]
        tensors = [gradients.tensors[index] for index in batch.indices]
        device = tensors[0].device
        self._device_time.begin(device)
        match turns.metric:
            case "update_ratio":
                self._pending = _Pending(UpdateRatio(weights), gradients.step, batch.rows)
            case "weight_norm":
                self._give(turns.metric, gradients.step, batch.rows, weight_norm.weight_norms(weights))
            case "grad_histogram":
                self._give(turns.metric, gradients.step, batch.rows, magnitude.magnitudes(tensors))
            case "layer_coefficient":
                values = layer_coefficients(decision, batch.indices, device)
                self._give(turns.metric, gradients.step, batch.rows, values)
        self._device_time.end(device)

    def _finish(self, pending: _Pending, gradients: Gradients) -> None:
        """The second half of an update ratio, at the next clip that has any of its layers."""
        wanted = {id(weight) for weight in pending.ratio.weights}
        if not any(id(parameter) in wanted for parameter in gradients.parameters):
            pending.waited += 1
            self._pending = None if pending.waited > _PATIENCE else pending
            return
        self._pending = None
        device = pending.ratio.weights[0].device
        self._device_time.begin(device)
        values = pending.ratio.finish()
        if values is not None:
            self._give("update_ratio", pending.step, pending.rows, values)
        self._device_time.end(device)

    def _give(self, metric: Metric, step: int, rows: list[int], values: Tensor) -> None:
        self._send(Sample(step, metric, np.array(rows, np.int64), values))

    def _leave_out(self, error: Exception) -> None:
        failed = None if self._bill is None else self._bill.turns
        self._bill = self._pending = None
        self._turns = [turns for turns in self._turns if failed is not None and turns is not failed]
        if not self._turns:
            self.close()
        what = "nothing is sampled" if failed is None else f"{failed.metric} is sampled no more"
        say(f"{what}: {error!r}")


def _all_turns() -> list[Turns]:
    """One of each metric, with prices a little above those of a CPU (nanoseconds an element)."""
    return [
        Turns("update_ratio", _copied_elements, Price(4e-9), 16, update_ratio.MOST_BYTES // 4),
        Turns("grad_histogram", lambda weight, gradient: magnitude.elements(gradient), Price(4e-9), 292),
        Turns("weight_norm", lambda weight, gradient: weight_norm.elements(weight), Price(2e-9), 16),
        Turns("layer_coefficient", lambda weight, gradient: 1, Price(2e-9), 16),
    ]


def _copied_elements(weight: Tensor, gradient: Tensor) -> int:
    return update_ratio.copied_bytes(weight) // 4
