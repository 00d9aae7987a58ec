"""The object a training script holds: it clips, measures and hands the step to the recording."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradwatch import frames
from gradwatch.clipping.measure_only import MeasureOnly
from gradwatch.clipping.strategy import Strategy
from gradwatch.clipping.through_time import ThroughTime
from gradwatch.console import say
from gradwatch.control import Control
from gradwatch.engine import Call, Engine, NonFinite, Outcome, Taken, nonfinite_layers
from gradwatch.layers import LayerTable
from gradwatch.measure.execution_order import ExecutionOrder
from gradwatch.measure.loss_scale import unscale
from gradwatch.recording import NullSink, Sink
from gradwatch.step_writer import StepWriter, Wanted
from gradwatch.uncaught import reason_of
from gradwatch.wiring.observer import Wiring

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _uncompiled(function: _Function) -> _Function:
    # A compiler that traced a clip would swallow some of its rows; leaving it out costs two microseconds a step.
    return cast(_Function, torch.compiler.disable(function))  # type: ignore[no-untyped-call]


class NonFiniteGradientError(FloatingPointError):
    """Raised by ``monitor.clip`` under ``nonfinite="raise"``; names step and layers. The gradients are untouched."""


class Monitor:
    """Built by ``gradwatch.watch``; see there for the arguments.

    A copy of a monitor (``copy.deepcopy``, pickle) clips the same and records nothing.
    """

    def __init__(  # noqa: PLR0913 - what watch was told, and nobody else calls it
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        strategy: Strategy,
        *,
        nonfinite: NonFinite,
        start_step: int,
        open_sink: Callable[[int, Strategy], Sink],
        wanted: Wanted,
        fold: bool = True,
        control: Control | None = None,
    ) -> None:
        self.strategy = strategy
        self.nonfinite = nonfinite
        self.optimizers = list(optimizers)
        self._step = start_step
        self._table = LayerTable(model, self.optimizers)
        self._wanted = wanted
        self._engine = Engine(self._table, self.optimizers, fold)
        self._order = ExecutionOrder(model)
        self._open_sink = open_sink
        self._control = control
        self._writer: StepWriter | None = None
        self._through_time: list[ThroughTime] = []
        self._wiring: Wiring | None = Wiring(self.owns, self._tell_wiring)
        self._clipped: Tensor | bool = False
        self._said: set[str] = set()

    # What a script uses.

    @property
    def step(self) -> int:
        """The number of the next step; steps are counted from ``start_step``."""
        return self._step

    @property
    def threshold(self) -> float:
        """The threshold in force, as far as the host knows it. Settable; takes effect with the next clip."""
        return self.strategy.threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.strategy.threshold = value

    @property
    def clipped(self) -> bool:
        """Whether the last step was a clip event. Waits for the device, if there is one."""
        return bool(self._clipped)

    @property
    def should_stop(self) -> bool:
        """Whether somebody asked this training to end: on all ranks from the same step on. For the loop to read."""
        return self._control is not None and self._control.should_stop

    def clip(
        self, loss: Tensor | float | None = None, *, optimizer: Optimizer | None = None, scaler: Any = None
    ) -> Tensor:
        """Measure, clip and record one step. Call it after ``backward`` and before ``optimizer.step``.

        ``loss``: recorded with the step, detached at once. ``optimizer``: clip and count only this one's parameters.
        ``scaler``: a ``torch.amp.GradScaler``; gradients it has not unscaled yet are unscaled first. Give it always
        when one is in use: scaled gradients would be measured and clipped as they are.
        Returns the total norm before clipping, 0-dimensional, on the gradients' device, without waiting for it.
        Raises NonFiniteGradientError under ``nonfinite="raise"``, else nothing of gradwatch's own: should gradwatch
        fail, torch's clipping takes over and an event says so.
        """
        if scaler is not None:
            for owner in self.optimizers if optimizer is None else [optimizer]:
                unscale(scaler, owner)
        parameters: Sequence[Tensor] | None = None
        if optimizer is not None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            self._adopt(parameters)
        optimizers = None if optimizer is None else [optimizer]
        return self._take_step(Call(self.strategy, self.nonfinite, parameters, loss, scaler, optimizers))

    def clip_parameters(self, parameters: Sequence[Tensor], strategy: Strategy, nonfinite: NonFinite) -> Tensor:
        """One step on ``parameters`` alone, by another strategy than the monitor's own: what the drop-ins call."""
        self._adopt(parameters)
        # By no optimizer, so nothing is folded: these gradients are clipped when the call returns, as torch's are.
        return self._take_step(Call(strategy, nonfinite, parameters, optimizers=()))

    def log(self, values: Mapping[str, float | Tensor], step: int | None = None) -> None:
        """Record values of the user's own, such as an accuracy, at ``step`` (default: the last clipped one)."""
        try:
            at = max(self._step - 1, 0) if step is None else step
            self._writing().sink.log(frames.check_count("step", at), values)
        except Exception as error:
            self._tell("a logged value could not be recorded", f"a logged value could not be recorded: {error}")

    def event(self, name: str, text: str = "") -> None:
        """Record a mark on the time axis, such as ``monitor.event("checkpoint", "step 1000")``."""
        try:
            self._writing().sink.event(max(self._step - 1, 0), name, text)
        except Exception as error:
            self._tell("an event could not be recorded", f"an event could not be recorded: {error}")

    def through_time(
        self, *, clip_value: float | None = None, max_norm: float | None = None, name: str = "hidden"
    ) -> ThroughTime:
        """Clipping for the hidden states of an unrolled recurrent network; see there."""
        through_time = ThroughTime(clip_value, max_norm, name)
        self._through_time.append(through_time)
        return through_time

    def finish(self, state: str = "finished", reason: str = "") -> None:
        """End the run; takes two seconds at most. The monitor goes on clipping, without recording."""
        self._order.close()
        if self._wiring is not None:
            self._wiring.close()
        sink = self._writer.end() if self._writer is not None else None
        self.go_silent()
        if sink is not None:
            sink.finish(state, reason or ("stopped as asked" if self.should_stop else ""))
        if self._control is not None:
            self._control.close()

    def go_silent(self) -> None:
        """From now on clip and record nothing."""
        self._open_sink = _no_sink
        self._writer = None
        if self._control is not None:
            self._control.let_go()

    def detach(self) -> None:
        """Stop watching: the same as ``finish``."""
        self.finish()

    def state_dict(self) -> dict[str, Any]:
        """Step and strategy state, to be saved with a checkpoint."""
        return {"step": self._step, "strategy": self.strategy.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; call it before the first clip, which opens the attempt at that step."""
        self._step = int(state["step"])
        self.strategy.load_state_dict(state["strategy"])

    def owns(self, parameter: Tensor) -> bool:
        """Whether ``parameter`` is among those measured here."""
        return id(parameter) in self._table.place

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Leaving by sys.exit(0), or by closing a generator, is an ordinary end.
        if error is None or isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code):
            self.finish()
        else:
            self.finish("failed", reason_of(error))

    def __getstate__(self) -> dict[str, Any]:
        kept = ("strategy", "nonfinite", "optimizers", "_step", "_table", "_wanted", "_clipped", "_said")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._through_time = []
        self._wiring = self._control = None
        self._order = ExecutionOrder(nn.Module())
        self._order.close()
        self._engine = Engine(self._table, self.optimizers, fold=False)
        self.go_silent()

    # One step.

    def _adopt(self, parameters: Sequence[Tensor]) -> None:
        if self._table.adopt(parameters) and self._writer is not None:
            self._writer.table_has_grown()

    @_uncompiled
    def _take_step(self, call: Call) -> Tensor:
        if self._control is not None:
            self._control.begin_step(self, call.strategy)
        # What torch.no_grad() does, for a tenth of its price, which is one percent of a clip of 144 tensors.
        grad_mode = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        try:
            return self._step_without_grad(call)
        finally:
            torch._C._set_grad_enabled(grad_mode)

    def _step_without_grad(self, call: Call) -> Tensor:
        try:
            if self._table.has_grown() and self._writer is not None:
                self._writer.table_has_grown()
            chosen = self._table.parameters if call.parameters is None else call.parameters
            if self._wiring is not None and self._wiring.active:
                self._wiring.clip_begins(chosen, call.scaler, type(call.strategy).__name__)
            taken = self._engine.take(call.strategy, chosen, self._step)
            sample_seconds = 0.0 if self._writer is None else self._writer.sample(taken)
            outcome = self._engine.change(call.strategy, taken, call.nonfinite, call.scaler, call.optimizers)
            total = taken.measurement.total
            self._clipped = taken.decision.clipped
        except Exception as error:
            total = self._fall_back(error, call)
        else:
            self._record(taken, outcome, call, sample_seconds)
            if outcome.refused:
                self._end_of_clip()
                step, self._step = self._step, self._step + 1
                bad = nonfinite_layers(taken, self._table)
                raise NonFiniteGradientError(f"step {step}: the gradient norm is not finite in {bad}")
        self._end_of_clip()
        self._step += 1
        return total

    def _end_of_clip(self) -> None:
        if self._wiring is not None and self._wiring.active:
            self._wiring.clip_ends()

    def _record(self, taken: Taken, outcome: Outcome, call: Call, sample_seconds: float) -> None:
        try:
            writer = self._writing()
            if not isinstance(writer.sink, NullSink):
                writer.write(self._step, call.loss, taken, outcome, call.scaler, sample_seconds)
            for through_time in self._through_time:
                values = through_time.take()
                if values:
                    writer.sink.log(self._step, values)
        except Exception as error:
            self._tell("a step could not be recorded", f"step {self._step} could not be recorded: {error!r}")

    def _writing(self) -> StepWriter:
        if self._writer is None:
            sink = self._open_sink(self._step, self.strategy)
            self._writer = StepWriter(self._table, self._order, self.optimizers, sink, self._wanted)
            commands = tuple if self._control is None else self._control.take_surfaces
            self._writer.start_probing(clips=not isinstance(self.strategy, MeasureOnly), commands=commands)
            if self._control is not None:
                self._control.start(self, sink)
            weakref.finalize(self, sink.abandon).atexit = False
        return self._writer

    # When something is wrong.

    def watch_wiring(self) -> None:
        """Look for optimizer steps without a clip from now on."""
        if self._wiring is not None:
            self._wiring.watching()

    def _tell_wiring(self, finding: str, text: str) -> None:
        """Once for each way in which the clip is wired wrongly; ranks and modes that record nothing say nothing."""
        sink = self._writing().sink
        if not isinstance(sink, NullSink):
            say(f"{finding}: {text}")
            sink.event(max(self._step - 1, 0), "wiring", f"{finding}: {text}")

    def _fall_back(self, error: Exception, call: Call) -> Tensor:
        """torch's own clipping in place of ours: never no clipping."""
        total = call.strategy.fall_back(self._table.parameters if call.parameters is None else call.parameters)
        text = f"step {self._step}: gradwatch could not clip ({error!r}); torch's own clipping took over"
        self._tell("gradwatch could not clip", text)
        return total

    def _tell(self, kind: str, text: str) -> None:
        """One line on the console for each kind of failure, and an event for each failure."""
        if kind not in self._said:
            self._said.add(kind)
            say(text)
        try:
            if self._writer is not None:
                self._writer.sink.event(self._step, "fallback", text)
        except Exception:
            return


def _no_sink(step: int, strategy: Strategy) -> Sink:
    return NullSink()
