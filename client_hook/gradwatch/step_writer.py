"""One step's measurement on its way into a row: laid out over all layers, or over modules where they are too many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from gradwatch import frames
from gradwatch.clipping.norms import Measurement
from gradwatch.console import say
from gradwatch.device_recorder import DeviceRecorder
from gradwatch.engine import Outcome, Taken
from gradwatch.globs import Globs
from gradwatch.layers import LayerTable, Present, fold_into_modules
from gradwatch.measure.execution_order import ExecutionOrder
from gradwatch.measure.learning_rate import learning_rate
from gradwatch.measure.loss_scale import loss_scale
from gradwatch.measure.sampler import Sampler
from gradwatch.probe.activity import Moment
from gradwatch.probe.prober import Prober
from gradwatch.probe.probing import Probing
from gradwatch.recorder import MISSING, Bitmap, Recorder
from gradwatch.recording import NullSink, Sink


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a run is recorded: which layers, which share of the step time may go into samples of them, and probes."""

    layers: Globs | None = None
    sample_budget: float = 0.0
    probing: Probing | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Copied and pickled without the probe: it holds the user's functions, and a copy records nothing anyway.
        return Wanted, (self.layers, self.sample_budget)


class StepWriter:
    """Writes the steps of one monitor to ``sink``."""

    def __init__(
        self,
        table: LayerTable,
        order: ExecutionOrder,
        optimizers: Sequence[Optimizer],
        sink: Sink,
        wanted: Wanted,
    ) -> None:
        self.sink = sink
        self._table = table
        self._order = order
        self._optimizers = optimizers
        self._wanted = wanted
        self._sampler: Sampler | None = None
        self._prober: Prober | None = None
        self._recorder: Recorder | DeviceRecorder | None = None
        self._dtype = torch.float32
        self._selected: _Selected | None = None
        self._modules: _Modules | None = None
        self._written_at: float | None = None
        self._last_step = 0
        self._loss_told = False
        self._alarming = False

    def start_probing(self, *, clips: bool, commands: Callable[[], Iterable[Mapping[str, Any]]] = tuple) -> None:
        """Probe as wanted from the next steps on, and as ``commands`` ask.

        ``clips``: whether the training clips, so that this can be judged.
        """
        probing = self._wanted.probing
        if probing is not None and not isinstance(self.sink, NullSink):
            self._prober = Prober(
                probing,
                self._optimizers,
                clips=clips,
                send=self.sink.landscape,
                tell=lambda name, text: self.sink.event(max(self._last_step, 0), name, text),
                commands=commands,
            )

    def end(self) -> Sink:
        """Write no more; the sink, for its last words."""
        if self._prober is not None:
            self._prober.close()
        return self.sink

    def table_has_grown(self) -> None:
        """The next step opens a new layer table."""
        self._recorder = None

    def write(
        self, step: int, loss: Tensor | float | None, taken: Taken, outcome: Outcome, scaler: Any, sample_seconds: float
    ) -> None:
        """Record one step; on another device than the CPU without waiting for it."""
        if self._prober is not None:
            self._prober.after_change()
        now = time.perf_counter()
        self._last_step = step
        seconds = MISSING if self._written_at is None else now - self._written_at
        self._written_at = now
        measurement, decision = taken.measurement, taken.decision
        recorder = self._recorder or self._begin(measurement)
        norms, absent = self._spread(measurement.norms, taken.present)
        scalars = (
            measurement.total,
            decision.coefficient,
            decision.threshold,
            decision.clipped,
            learning_rate(self._optimizers),
            loss_scale(scaler),
            seconds,
            outcome.skipped,
            decision.cosine,
            sample_seconds,
        )
        if isinstance(recorder, DeviceRecorder):
            recorder.write(step, (self._on_device(loss), *scalars), norms, absent)
            return
        numbers = tuple(map(float, scalars))
        recorder.write(step, (MISSING if loss is None else self._number(loss), *numbers), norms, absent)
        alarming = not (math.isfinite(numbers[0]) and numbers[1] > 0.1)
        # At the first such step only: a run that is always clipped hard would else wake the threads at every step.
        if alarming and not self._alarming:
            self.sink.urgent()
        self._alarming = alarming

    def sample(self, taken: Taken) -> float:
        """Measure what is due beside the norms, before the gradients are changed; the seconds that it took.

        Then probe; probes keep their own accounts.
        """
        seconds = 0.0 if self._sampler is None else self._sampler.step(taken.gradients, taken.decision)
        if self._prober is not None:
            self._prober.step(Moment(taken.gradients.step, taken.decision.clipped))
        return seconds

    def _on_device(self, loss: Tensor | float | None) -> Tensor | float:
        if isinstance(loss, Tensor) and loss.device.type != "cpu" and loss.numel() == 1:
            return loss.detach()
        return MISSING if loss is None else self._number(loss)

    def _number(self, loss: Tensor | float) -> float:
        try:
            if isinstance(loss, Tensor) and loss.numel() != 1:
                raise ValueError(f"its shape is {tuple(loss.shape)}")
            return float(loss.item() if isinstance(loss, Tensor) else loss)
        except (TypeError, ValueError, RuntimeError) as error:
            if not self._loss_told:
                self._loss_told = True
                say(f"the loss given to clip is no single number ({error}); steps are recorded without it")
            return MISSING

    def _spread(self, norms: Tensor, present: Present | None) -> tuple[Tensor, Bitmap | None]:
        """Norms laid out over all layers, in the recorded precision, and the packed bitmap of absent ones."""
        if norms.dtype is not self._dtype:
            norms = norms.to(self._dtype)
        if not norms.numel():
            norms = norms.to(self._table.device)
        absent = None
        if present is not None:
            laid_out = torch.zeros(len(self._table.parameters), dtype=norms.dtype, device=norms.device)
            norms, absent = laid_out.index_copy_(0, present.index.to(norms.device), norms), present.absent
        if self._selected is not None:
            norms, absent = self._selected(norms, absent)
        if self._modules is not None:
            norms, absent = self._modules(norms, absent)
        return norms, None if absent is None else np.packbits(absent, bitorder="little")

    def _begin(self, measurement: Measurement) -> Recorder | DeviceRecorder:
        """Open the layer table; at the first step, because only then the execution order is known."""
        self._order.close()
        layers = self._table.layers_now()
        sampled: Sequence[int] = range(len(layers))
        self._selected = None
        if self._wanted.layers is not None:
            rows = [place for place, layer in enumerate(layers) if self._wanted.layers(layer.name)]
            self._selected = _Selected(rows, self._table.device)
            layers = [layers[row] for row in rows]
            sampled = rows
        if len(layers) > frames.MAX_LAYERS:
            if self._modules is None:
                say(f"{len(layers)} layers are more than {frames.MAX_LAYERS}: modules are recorded in their place")
            sampled = []
            layers, into = fold_into_modules(layers)
            self._modules = _Modules(into, len(layers), measurement.norm_type, self._table.device)
        ranks = self._order.ranks([layer.owner for layer in layers])
        # From the parameters, not the measurement: the first step may have no gradient at all.
        device, dtype = self._table.device, torch.float64 if self._table.has_float64 else torch.float32
        self._dtype = dtype
        on_host = device.type == "cpu"
        recorder = Recorder(len(layers), dtype) if on_host else DeviceRecorder(len(layers), dtype, device)
        self.sink.begin([layer.as_json(rank) for layer, rank in zip(layers, ranks, strict=True)], recorder)
        self._recorder = recorder
        if self._sampler is not None:
            self._sampler.close()
        self._sampler = Sampler(sampled, self._wanted.sample_budget, self.sink.sample, self._table.place)
        return recorder


class _Selected:
    """The layers that ``layers=`` chose, out of all."""

    def __init__(self, rows: list[int], device: torch.device) -> None:
        self._rows = torch.tensor(rows, dtype=torch.long, device=device)
        self._places = np.array(rows, np.intp)

    def __call__(self, norms: Tensor, absent: Bitmap | None) -> tuple[Tensor, Bitmap | None]:
        return norms.index_select(0, self._rows), None if absent is None else absent[self._places]


class _Modules:
    """Module norms in place of layer norms: the p-norm of the norms of a module's layers, in float64."""

    def __init__(self, into: list[int], modules: int, norm_type: float, device: torch.device) -> None:
        self._into = torch.tensor(into, device=device)
        self._places = np.array(into)
        self._modules = modules
        self._norm_type = norm_type

    def __call__(self, norms: Tensor, absent: Bitmap | None) -> tuple[Tensor, Bitmap | None]:
        folded = torch.zeros(self._modules, dtype=torch.float64, device=norms.device)
        if math.isinf(self._norm_type):
            folded.scatter_reduce_(0, self._into, norms.double(), "amax")
        else:
            folded.index_add_(0, self._into, norms.double() ** self._norm_type).pow_(1 / self._norm_type)
        if absent is not None:
            some = np.zeros(self._modules, np.uint8)
            np.maximum.at(some, self._places, 1 - absent)
            absent = 1 - some
        return folded.to(norms.dtype), absent
