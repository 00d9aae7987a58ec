"""The prober: which probe does its next piece of work, when, and what becomes of it when something goes wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, Final

import torch
from torch.optim import Optimizer

from gradwatch.console import say
from gradwatch.device_recorder import is_captured
from gradwatch.measure.budget import Budget, Price
from gradwatch.measure.device_time import DeviceTime
from gradwatch.probe.activity import Activity, Moment, Piece
from gradwatch.probe.laboratory import Laboratory
from gradwatch.probe.landscape_rows import LandscapeRows
from gradwatch.probe.probing import Probing
from gradwatch.probe.reading import Reading
from gradwatch.probe.shadow import UnfitProbe, is_out_of_memory
from gradwatch.probe.training_state import TrainingState

_CUDA: Final = torch.device("cuda")
_WARM_UP: Final = 3  # steps before the first piece: optimizers make their state, compilers compile
_BUILDING: Final = 1  # steps that copying the model is expected to take as long as
_MARGIN: Final = 1.5  # of its expected price must be earned before a piece begins: no two take equally long
_SAVED_SECONDS: Final = 0.25  # saved up at most, over a validation or a checkpoint for example
_MOST_STEPS: Final = 20  # that one point may take as long as, unless it is shorter than the next
_SHORT: Final = 0.5  # seconds
_BUILT: Final = 4  # copies of the model after which each has to have been worth it
_WORTH: Final = 32  # points
_SLOW_POINTS: Final = 3  # in a row that make probing give up
_CLOSE_LOOKS: Final = 16  # points after which the tripwire reads all values only at every such point


class TrainingMoved(Exception):
    """A probe changed the training; the message names what."""


class _Work:
    """A piece that was begun, and what it took of the host."""

    def __init__(self, activity: Activity, piece: Piece) -> None:
        self.activity, self.piece = activity, piece
        self.reading: Reading | None = None
        self.moved: Reading | None = None
        self.host_seconds = 0.0

    def ready(self) -> bool:
        return all(reading is None or reading.ready() for reading in (self.reading, self.moved))


class Prober:
    """Told of every clip; does at most one piece of work in it, within its share of the training's time.

    It reads the training and never writes to it, waits for no device, and raises nothing: when a probe or the model is
    unfit, when memory runs out, or when the tripwire sees that something moved, it says so once and stops for good.
    """

    def __init__(
        self,
        probing: Probing,
        optimizers: Sequence[Optimizer],
        *,
        clips: bool,
        send: Callable[[LandscapeRows], None],
        tell: Callable[[str, str], None],
        commands: Callable[[], Iterable[Mapping[str, Any]]] = tuple,
    ) -> None:
        self.is_active = True
        self.spent = self.elapsed = 0.0
        self.points = 0
        self._probing, self._optimizers, self._clips = probing, optimizers, clips
        self._send, self._tell, self._commands = send, tell, commands
        self._budget = Budget(probing.budget, _SAVED_SECONDS)
        self._prices: dict[str, Price] = {}
        self._needed = 0.0
        self._device_time = DeviceTime()
        self._numbers = count()
        self._laboratory: Laboratory | None = None
        self._work: _Work | None = None
        self._steps = self._built = 0
        self._slow = 0
        self._is_idle = True  # no piece is under way, and none belongs to the next step
        self._seen_at: float | None = None

    def step(self, moment: Moment) -> None:
        """At every clip, before any gradient is changed, without grad mode."""
        if not self.is_active:
            return
        now = time.perf_counter()
        if self._seen_at is not None:
            self.elapsed += now - self._seen_at
            self._budget.earn(now - self._seen_at)
        self._seen_at = now
        self._steps += 1
        # Nearly every step ends here, after a microsecond: at a budget of a hundredth, ten would be felt.
        if self._steps <= _WARM_UP or (self._is_idle and self._budget.in_hand < self._needed):
            return
        try:
            self._act(moment)
            must = self._laboratory is not None and self._laboratory.must_go_on is not None
            self._is_idle = self._work is None and not must
        except Exception as error:
            self._stop(error)
        seconds = time.perf_counter() - now
        self.spent += seconds
        self._budget.spend(seconds)

    def after_change(self) -> None:
        """At every clip, once the gradients are those that the optimizer gets."""
        if self._laboratory is not None and self._laboratory.updates.must_go_on:
            begun = time.perf_counter()
            try:
                self._laboratory.updates.after_change()
            except Exception as error:
                self._stop(error)
            self.spent += time.perf_counter() - begun
            self._budget.spend(time.perf_counter() - begun)

    def close(self) -> None:
        """Probe no more, send what is known by now, and let go of all memory."""
        self.is_active = False
        if self._laboratory is not None:
            self._laboratory.flush()
        self._laboratory = self._work = None

    # One piece at a time.

    def _act(self, moment: Moment) -> None:
        laboratory = self._laboratory
        if is_captured(_CUDA):
            return  # nothing may be queued, and no event asked
        must = None if laboratory is None else laboratory.must_go_on
        # A piece that this step needs does not wait for the one before it, of which nothing is to be read.
        if self._work is not None and not self._collect(self._work) and must is None:
            return
        if must is None and self._budget.in_hand < self._needed:
            return
        if laboratory is None or not laboratory.shadow.is_current:
            self._needed = min(_BUILDING * self._step_seconds, self._budget.capacity)
            if self._budget.affords(self._needed):
                self._build()
                self._needed = 0.0
            return
        for command in self._commands():
            laboratory.surfaces.request(command)
        for activity in [must] if must is not None else laboratory.in_turn():
            piece = activity.next_piece(moment)
            if piece is None:
                continue
            price = self._prices.get(piece.kind)
            expected = _MARGIN * (self._step_seconds if price is None else price.of(1))
            self._needed = min(expected, self._budget.capacity)
            if must is not None or self._budget.affords(expected):
                self._begin(activity, piece)
                self._needed = 0.0
            return

    def _build(self) -> None:
        model = self._probing.model()
        if model is None:
            self.close()
            return
        self._built += 1
        if self._built > _BUILT and self.points < _WORTH * self._built:
            raise UnfitProbe("the model gets other parameters or buffers, or freezes and thaws them, all the time")
        self._laboratory = self._work = None
        self._laboratory = Laboratory(
            model,
            self._probing.closures,
            self._optimizers,
            clips=self._clips,
            send=self._send,
            cost=lambda: (self.spent, self.elapsed),
            number=lambda: next(self._numbers),
        )

    def _begin(self, activity: Activity, piece: Piece) -> None:
        assert self._laboratory is not None
        work = _Work(activity, piece)
        device = self._laboratory.shadow.devices[0]
        begun = time.perf_counter()
        self._device_time.begin(device)
        if piece.calls_probe:
            self.points += 1
            work.reading, work.moved = self._guarded(piece)
        else:
            work.reading = piece.begin()
        self._device_time.end(device)
        work.host_seconds = time.perf_counter() - begun
        self._work = work  # only now: a Ctrl-C in the closure goes through, and leaves nothing half done
        self._collect(work)

    def _guarded(self, piece: Piece) -> tuple[Reading | None, Reading | None]:
        """Run a piece that calls the user's closure between two looks at the training. Raises TrainingMoved."""
        assert self._laboratory is not None
        model = self._laboratory.shadow.original
        with_values = self.points <= _CLOSE_LOOKS or self.points % _CLOSE_LOOKS == 0
        before = TrainingState(model, with_values=with_values)
        failure: Exception | None = None
        reading = None
        try:
            reading = piece.begin()
        except Exception as error:
            failure = error
        after = TrainingState(model, with_values=with_values)
        moved = after.moved(before)
        if moved:
            before.put_back(model)
            raise TrainingMoved(" and ".join(moved)) from failure
        if failure is not None:
            raise failure
        differs = after.values_moved(before)
        return reading, None if differs is None else Reading([differs])

    def _collect(self, work: _Work) -> bool:
        """Learn what a piece found and cost; whether that was known by now."""
        if not work.ready():
            return False
        device_seconds = self._device_time.take()
        if device_seconds is None:
            return False
        self._work = None
        self.spent += device_seconds
        self._budget.spend(device_seconds)
        if work.moved is not None and work.moved.values()[0][0]:
            raise TrainingMoved("parameters or buffers")
        seconds = work.host_seconds + device_seconds
        work.activity.spent += seconds
        self._prices.setdefault(work.piece.kind, Price(seconds)).learn(1, seconds)
        if work.piece.calls_probe:
            self._judge_pace(seconds)
        if work.piece.finish is not None:
            work.piece.finish([] if work.reading is None else work.reading.values(), seconds)
        return True

    def _judge_pace(self, seconds: float) -> None:
        step = self._step_seconds
        self._slow = self._slow + 1 if seconds > max(_SHORT, _MOST_STEPS * step) else 0
        if self._slow >= _SLOW_POINTS:
            raise UnfitProbe(
                f"one look at the loss takes {seconds:.1f} s, longer than {_MOST_STEPS} steps of the training: "
                "give the probe a smaller batch"
            )

    @property
    def _step_seconds(self) -> float:
        """What a step takes without its probes, on the average; a first guess at what a forward pass may cost."""
        return max(0.0, self.elapsed - self.spent) / max(1, self._steps - 1)

    def _stop(self, error: Exception) -> None:
        self.close()
        if isinstance(error, TrainingMoved):
            name, text = "probe_tripwire", f"a probe changed the training's {error}: probing is off from here on"
        elif isinstance(error, UnfitProbe):
            name, text = "probe", f"probing is off: {error}"
        elif is_out_of_memory(error):
            name, text = "probe", "probing is off: memory ran out; give the probe a smaller batch"
        else:
            name, text = "probe", f"probing is off: {error!r}"
        say(text)
        self._tell(name, text)
