"""What the wiring check knows of one optimizer: its probes, its loss scaler, and parameters that no clip covers."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState
from torch.optim import Optimizer

from gradwatch.wiring.findings import Finding
from gradwatch.wiring.gradient_probe import ADDED, BACKWARD, GradientProbe

_FRAMES: Final = 40  # callers looked through for the scaler; schedulers and accelerate put a few of theirs between


class Stepper:
    """One optimizer, which is not held: the methods are given it."""

    def __init__(self) -> None:
        self.probes: set[GradientProbe] = set()
        self.known = (-1, -1)  # numbers of all probes and of the optimizer's parameters when these were looked up
        self.in_a_row: Counter[Finding] = Counter()
        self.was_scaled = False  # at the last clip of any of its parameters
        self._outsider: GradientProbe | None = None
        self._outside_is_handled = False
        self._scaler: Callable[[], Any] = _nothing
        self._given: Callable[[], Any] = _nothing  # what the scaler was given: the optimizer, or what wraps it

    def close(self) -> None:
        if self._outsider is not None:
            self._outsider.close()
            self._outsider = None

    def find_scaler(self) -> None:
        """Remember the GradScaler that has called the step under way, if one has."""
        frame, left = sys._getframe(), _FRAMES
        while frame is not None and left:
            if frame.f_code is GradScaler.step.__code__:
                self._scaler = weakref.ref(frame.f_locals["self"])
                self._given = weakref.ref(frame.f_locals["optimizer"])
                return
            frame, left = frame.f_back, left - 1  # type: ignore[assignment]

    def is_scaled(self, optimizer: Optimizer, clip_has_scaler: bool) -> bool:
        """Whether the scaler of the last step still has to unscale this optimizer's gradients.

        A fused optimizer can leave that to its step, and a clip that was given the scaler can know it.
        """
        scaler, given = self._scaler(), self._given()
        if scaler is None or given is None or not scaler.is_enabled():
            return False
        if clip_has_scaler and getattr(optimizer, "_step_supports_amp_scaling", False):
            return False
        state = scaler._per_optimizer_states.get(id(given))
        return state is None or state["stage"] is OptState.READY

    def uncovered(
        self, optimizer: Optimizer, covered: set[int], is_others: Callable[[Tensor], bool]
    ) -> dict[str, Any] | None:
        """Facts about the parameters that the step updates and no clip was given; None when there are none.

        One of them is followed first: who changes its gradient between backward and step clips it by other means.
        """
        updated = [parameter for parameter in parameters_of(optimizer) if parameter.grad is not None]
        outside = [parameter for parameter in updated if id(parameter) not in covered and not is_others(parameter)]
        if not outside or self._outside_is_handled:
            return None
        if self._outsider is None or all(parameter is not self._outsider.parameter for parameter in outside):
            self.close()
            self._outsider = probe_of(min(outside, key=Tensor.numel))
            return None
        followed = bool(set(self._outsider.marks) & {BACKWARD, ADDED})
        self._outside_is_handled = followed and not self._outsider.is_untouched()
        self._outsider.begin_anew()
        if not followed or self._outside_is_handled:
            return None
        return {"count": len(outside), "all": len(updated), "shape": tuple(outside[0].shape)}


def parameters_of(optimizer: Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def probe_of(parameter: Tensor) -> GradientProbe | None:
    """A probe, where torch takes a hook on ``parameter``."""
    try:
        return GradientProbe(parameter)
    except RuntimeError:
        return None


def _nothing() -> None:
    return None
