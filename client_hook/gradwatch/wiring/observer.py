"""Finding, in a run's first steps, a clip that is wired wrongly; afterwards nothing of it is left.

Clip before backward, after the step, on scaled gradients, in every micro-batch, twice, on a subset of what the step
updates, on zeroed gradients, or never: each runs without an error and trains unclipped. A few parameters' gradients are
followed from backward over clip to step (``gradient_probe``), and each step judges what they went through
(``findings``). Better no finding than a false one: whatever cannot be seen for certain is not spoken of, and
a finding is told once two steps in a row show it.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradwatch import registry
from gradwatch.wiring import gradient_probe as mark
from gradwatch.wiring import step_hooks
from gradwatch.wiring.findings import SENTENCES, Finding, judge
from gradwatch.wiring.gradient_probe import GradientProbe, backward_is_compiled, in_backward
from gradwatch.wiring.stepper import Stepper, parameters_of, probe_of

_STEPS: Final = 16  # of each optimizer, on the average, that are judged
_CLIPS: Final = 512  # after which nothing is judged any more, however few steps there were
_UNCLIPPED_STEPS: Final = 10  # that make a missing clip a finding
_IN_A_ROW: Final = 2  # steps that must show the same
_MOST_PROBES: Final = 24
_GLANCES: Final = 2048  # at steps of whichever optimizer, until the next clip


class Wiring:
    """Told by a monitor of its clips, and by torch of optimizer steps. Never raises, and never waits for a device.

    ``owns``: whether a parameter is the monitor's. ``tell``: called with a finding's key and its sentence, once for
    each; both are held weakly where they are bound methods. ``active``: False once there is nothing more to look for.
    """

    def __init__(self, owns: Callable[[Tensor], bool], tell: Callable[[str, str], None]) -> None:
        self.active = True
        self._owns, self._tell = _weakly(owns), _weakly(tell)
        self._probes: dict[int, GradientProbe] = {}
        self._steppers: weakref.WeakKeyDictionary[Optimizer, Stepper] = weakref.WeakKeyDictionary()
        self._foreign: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()
        self._covered: set[int] = set()  # ids of all parameters that any clip was given
        self._clip = _Clip()
        self._clips = 0
        self._clip_came_first = True
        self._steps = 0  # since the first clip; before it, those without one
        self._glances = 0
        self._told: set[Finding] = set()

    # What the monitor tells.

    def watching(self) -> None:
        """Look at steps from now on, so that one without any clip is seen."""
        if self.active:
            step_hooks.observe(self)

    def clip_begins(self, parameters: Sequence[Tensor], scaler: Any, strategy: str = "") -> None:
        """A clip of ``parameters`` begins. ``strategy``: two clips in a row by different ones are no mistake."""
        if not self.active or torch.compiler.is_compiling():
            return
        try:
            if self._is_over():
                self.close()
                return
            self._glances = 0
            step_hooks.observe(self)
            self._note_clip(parameters, scaler, strategy)
        except Exception:
            self.close()

    def clip_ends(self) -> None:
        """The clip that began last is done with the gradients."""
        if not self.active or torch.compiler.is_compiling():
            return
        try:
            for probe in self._clip.probes:
                probe.clip_ended()
            for optimizer, stepper in list(self._steppers.items()):
                if not stepper.probes.isdisjoint(self._clip.probes):
                    stepper.was_scaled = stepper.is_scaled(optimizer, self._clip.has_scaler)
        except Exception:
            self.close()

    def close(self) -> None:
        """Look no more, and let go of everything. Safe to call again."""
        self.active = False
        for probe in self._probes.values():
            probe.close()
        for stepper in self._steppers.values():
            stepper.close()
        self._probes, self._clip = {}, _Clip()
        self._steppers.clear()
        self._covered.clear()
        step_hooks.leave(self)

    # Clips.

    def _is_over(self) -> bool:
        enough = self._clips > 0 and self._steps >= _STEPS * max(1, len(self._steppers))
        return enough or self._clips >= _CLIPS or backward_is_compiled()

    def _note_clip(self, parameters: Sequence[Tensor], scaler: Any, strategy: str) -> None:
        if self._clips == 0:
            is_bare = all(parameter.grad is None for parameter in parameters)
            self._clip_came_first = is_bare and self._steps == 0
            self._steps = 0
        self._clips += 1
        before, self._clip = self._clip, _Clip(parameters, strategy, scaler is not None)
        self._clip.probes = self._probes_among(before)
        is_same = strategy == before.strategy and len(parameters) == before.size
        for probe, found in zip(self._clip.probes, _marks(self._clip, is_same), strict=True):
            probe.note(found)

    def _probes_among(self, before: _Clip) -> list[GradientProbe]:
        """The probes among the parameters of the clip at hand, planted where there are none."""
        parameters = self._clip.parameters
        if parameters is before.parameters and self._clip.size == before.size and len(self._probes) == before.known:
            self._clip.known = before.known
            return before.probes
        ids = {id(parameter) for parameter in parameters}
        self._covered |= ids
        found = [probe for key, probe in self._probes.items() if key in ids] or self._plant(parameters)
        self._clip.known = len(self._probes)
        return found

    def _plant(self, parameters: Sequence[Tensor]) -> list[GradientProbe]:
        """Probes on the smallest parameter of the first, the middle and the last third."""
        fit = [parameter for parameter in parameters if parameter.requires_grad and parameter.is_leaf]
        fit = [parameter for parameter in fit if parameter.grad is not None] or fit
        third = -(-len(fit) // 3)
        planted = []
        for part in (fit[:third], fit[third : 2 * third], fit[2 * third :]):
            if part and len(self._probes) < _MOST_PROBES:
                parameter = min(part, key=Tensor.numel)
                probe = self._probes.get(id(parameter)) or probe_of(parameter)
                if probe is not None:
                    self._probes[id(parameter)] = probe
                    planted.append(probe)
        return planted

    # Steps: what torch tells.

    def step_begins(self, optimizer: Optimizer, has_closure: bool) -> None:
        """``optimizer`` steps. With a closure the gradients come only now, so the step's end is judged."""
        try:
            stepper = self._stepper_of(optimizer)
            if stepper is not None:
                stepper.find_scaler()
                if not has_closure:
                    self._judge(optimizer, stepper)
        except Exception:
            self._stop()

    def step_ends(self, optimizer: Optimizer, has_closure: bool) -> None:
        """``optimizer`` has stepped."""
        try:
            stepper = self._stepper_of(optimizer) if has_closure else None
            if stepper is not None:
                self._judge(optimizer, stepper)
        except Exception:
            self._stop()

    def _stop(self) -> None:
        """What a hook does in place of closing, which takes the hooks away under torch's feet: the next clip closes."""
        self._clips = _CLIPS
        step_hooks.leave(self)

    def _stepper_of(self, optimizer: Optimizer) -> Stepper | None:
        """What is known of ``optimizer``; None when its parameters are not the monitor's."""
        self._glances += 1
        if self._glances > _GLANCES:
            step_hooks.leave(self)
        stepper = self._steppers.get(optimizer)
        if stepper is None:
            if self._foreign.get(optimizer) == self._clips:
                return None
            if not any(self._owns(parameter) for parameter in parameters_of(optimizer)):
                self._foreign[optimizer] = self._clips
                return None
            stepper = self._steppers[optimizer] = Stepper()
        known = (len(self._probes), sum(len(group["params"]) for group in optimizer.param_groups))
        if stepper.known != known:
            stepper.known = known
            own = {id(parameter) for parameter in parameters_of(optimizer)}
            stepper.probes = {probe for key, probe in self._probes.items() if key in own}
            if not stepper.probes:
                own_covered = [parameter for parameter in parameters_of(optimizer) if id(parameter) in self._covered]
                stepper.probes = set(self._plant(own_covered))
        return stepper

    def _judge(self, optimizer: Optimizer, stepper: Stepper) -> None:
        if self._clips == 0:
            self._step_without_clip(optimizer)
            return
        self._steps += 1
        for finding, facts in self._findings(optimizer, stepper).items():
            stepper.in_a_row[finding] += 1
            if stepper.in_a_row[finding] == _IN_A_ROW:
                self._say(finding, **facts)
        for probe in stepper.probes:
            probe.begin_anew()
        if self._is_over():
            self._stop()

    def _step_without_clip(self, optimizer: Optimizer) -> None:
        if any(parameter.grad is not None for parameter in parameters_of(optimizer)):
            self._steps += 1
        if self._steps >= _UNCLIPPED_STEPS:
            self._say(Finding.NEVER, count=self._steps)
            step_hooks.leave(self)  # the first clip, should there be one after all, comes back

    def _findings(self, optimizer: Optimizer, stepper: Stepper) -> dict[Finding, dict[str, Any]]:
        """All that this step shows, with what their sentences need; what it does not show begins anew."""
        if in_backward() and not self._clip.in_backward and not stepper.probes.isdisjoint(self._clip.probes):
            return {Finding.IN_BACKWARD: {}}
        seen = [probe for probe in stepper.probes if set(probe.marks) & {mark.BACKWARD, mark.ADDED}]
        if not seen:
            return {}
        found: dict[Finding, dict[str, Any]] = {}
        finding = judge([probe.marks for probe in seen], clip_came_first=self._clip_came_first)
        if finding is not None and not (finding is Finding.ZEROED and not all(probe.is_gone() for probe in seen)):
            found[finding] = {}
        if all(probe.marks.endswith(mark.CLIPPED) for probe in seen):
            if stepper.was_scaled:
                found[Finding.SCALED] = {}
            if facts := stepper.uncovered(optimizer, self._covered, self._is_others):
                found[Finding.SUBSET] = facts
        for finding in set(stepper.in_a_row) - set(found):
            del stepper.in_a_row[finding]
        return found

    def _is_others(self, parameter: Tensor) -> bool:
        return not self._owns(parameter) and registry.owner_of(parameter) is not None

    def _say(self, finding: Finding, **facts: Any) -> None:
        if finding not in self._told:
            self._told.add(finding)
            self._tell(finding.value, SENTENCES[finding].format(**facts))


class _Clip:
    """One clip call: what it was given, and the probes among that."""

    def __init__(self, parameters: Sequence[Tensor] = (), strategy: str = "", has_scaler: bool = False) -> None:
        self.parameters, self.size = parameters, len(parameters)
        self.strategy, self.has_scaler = strategy, has_scaler
        self.in_backward = in_backward()
        self.probes: list[GradientProbe] = []
        self.known = -1  # number of all probes when these were looked up


def _marks(clip: _Clip, is_same: bool) -> list[str]:
    """What ``clip`` was to each of its probes; ``is_same``: it has the strategy and the size of the one before.

    A clip that brought something new to one probe is said to be useless for none: with several optimizers, some have
    nothing to clip in a turn that is another's.
    """
    states = [probe.state() for probe in clip.probes]
    kinds = set(states)
    if "fresh" in kinds:
        return [mark.CLIPPED if state == "fresh" else mark.OTHER for state in states]
    if is_same and "same" in kinds and kinds <= {"same", "stale"}:
        return [mark.AGAIN if state == "same" else mark.OTHER for state in states]
    if "gone" in kinds and kinds <= {"gone", "stale", "new"} and _is_gone(clip):
        return [mark.GONE if state == "gone" else mark.OTHER for state in states]
    return [mark.USELESS if kinds == {"stale"} else mark.OTHER] * len(states)


def _is_gone(clip: _Clip) -> bool:
    """Whether all gradients are away: zeroed ones look alike everywhere, but one alone can be None for many reasons."""
    zeroed = any(probe.parameter.grad is not None for probe in clip.probes)
    return zeroed or all(parameter.grad is None for parameter in clip.parameters)


def _weakly(call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` without keeping alive the object whose method it is; once that is gone, it does nothing."""
    if not inspect.ismethod(call):
        return call
    reference = weakref.WeakMethod(call)

    def called(*arguments: Any) -> Any:
        real = reference()
        return real(*arguments) if real is not None else None

    return called
