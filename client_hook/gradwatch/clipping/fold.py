"""Folding the coefficient into a fused optimizer's step, which then reads every gradient once instead of three times.

torch's fused kernels divide by ``optimizer.grad_scale`` and leave everything as it is where ``optimizer.found_inf`` is
1 (``torch/optim/adamw.py``, ``torch/amp/grad_scaler.py``). Both are set at the clip and taken away right after the step
by a hook. Nothing is folded unless the step before was seen to run with these hooks, plainly fused and without a
closure; a compiled step, for example, runs none, and there the gradients are multiplied as ever.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from gradwatch.clipping.strategy import multiply
from gradwatch.device_recorder import is_captured
from gradwatch.parameter_groups import first, members, signature

_ABLE: Final = (Adam, AdamW, SGD, Adagrad)


@dataclass(slots=True)
class _Pending:
    """What the next step of an optimizer is to multiply by; it lies in the optimizer's attributes meanwhile."""

    multiplier: Tensor
    skip: Tensor | None
    marks: list[tuple[Tensor, weakref.ref[Tensor], int]]
    """A few parameters, with the gradients it is meant for and their versions."""
    captured: bool
    """Armed while a CUDA graph was captured, so that only the same capture may use it."""

    def holds(self, *, untouched: bool) -> bool:
        """Whether those are still the parameters' gradients; ``untouched``: and nobody has changed them."""
        for parameter, reference, version in self.marks:
            gradient = reference()
            if gradient is None or parameter.grad is not gradient or (untouched and gradient._version != version):
                return False
        return True


class _Seat:
    """What is known of one optimizer, and the pair of hooks on it. It outlives the monitors, as the optimizer does."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.able = type(optimizer) in _ABLE
        self.proven = False  # the last step ran with the hooks, plainly fused and without a closure
        self.pending: _Pending | None = None
        self._plain = False
        self._scaler_at_work = False
        if self.able:
            optimizer.register_step_pre_hook(self._before_step)
            optimizer.register_step_post_hook(self._after_step)

    def settle(self, optimizer: Optimizer) -> None:
        """Bring a clip that no step has used to its end: multiply, if its gradients are still there as they were."""
        pending, self.pending = self.pending, None
        if pending is not None:
            _take_away(optimizer)
            if pending.holds(untouched=True):
                _multiply_now(optimizer, pending)

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():  # a compiled step sees an empty hook and stays one graph
            return
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        pending = self.pending
        captured = is_captured(first(optimizer).device)
        meant = captured == (pending is not None and pending.captured)
        self._plain = closure is None and meant and _fused_now(optimizer)
        if pending is None:
            return
        found = getattr(optimizer, "found_inf", None)
        # A GradScaler sets both for this step, grad_scale with ours in it, and deletes both after it.
        self._scaler_at_work = found is not None and found is not pending.skip
        if not self._scaler_at_work and not (self._plain and pending.holds(untouched=False)):
            _take_away(optimizer)
            self.pending = None
            if pending.holds(untouched=False) and not captured:
                _multiply_now(optimizer, pending)
        elif pending.skip is not None and found is not None and self._scaler_at_work:
            optimizer.found_inf = torch.maximum(found, pending.skip)  # type: ignore[attr-defined]

    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        self.proven = self._plain
        if self.pending is not None and not self._scaler_at_work:
            _take_away(optimizer)
        self.pending = None


_seats: weakref.WeakKeyDictionary[Optimizer, _Seat] = weakref.WeakKeyDictionary()


def _seat_of(optimizer: Optimizer) -> _Seat:
    if optimizer not in _seats:
        _seats[optimizer] = _Seat(optimizer)
    return _seats[optimizer]


class Fold:
    """The fused-optimizer path of one monitor."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._covered: tuple[list[int], object, bool] = ([], None, False)
        self._honoured: dict[object, bool] = {}
        for optimizer in optimizers:
            _seat_of(optimizer)

    def ready(self, optimizers: Sequence[Optimizer], measured: Sequence[Tensor], key: object) -> bool:
        """Whether the next step of all ``optimizers`` can be folded.

        ``measured``: the parameters whose gradients were measured. ``key`` stays the same object while ``measured`` is
        the same. To be asked once at every clip.
        """
        ready = bool(optimizers)
        for optimizer in optimizers:
            seat = _seat_of(optimizer)
            ready &= seat.able and seat.proven and _fused_now(optimizer) and not hasattr(optimizer, "grad_scale")
            seat.proven = False
        return ready and self._covers(optimizers, measured, key) and self._honours(optimizers)

    def can_skip(self, optimizers: Sequence[Optimizer]) -> bool:
        """Whether ``found_inf`` is safe: fused SGD would later read a buffer that a skipped first step left unset."""
        return all(_has_state(optimizer) for optimizer in optimizers)

    def arm(self, optimizers: Sequence[Optimizer], multiplier: Tensor, skip: Tensor | None) -> bool:
        """Leave the multiplication by ``multiplier`` (0-dimensional) to the next step of ``optimizers``.

        ``skip``: 0-dimensional, not 0: that step changes nothing. False: the coefficient is too small for it.
        """
        scale = multiplier.float().reciprocal()
        if scale.device.type != "cpu":
            # The inverse of a subnormal coefficient overflows, and would zero what torch leaves small.
            scale = torch.where(multiplier > 0, scale.clamp(max=torch.finfo(torch.float32).max), scale)
        elif scale.item() == math.inf and multiplier.item() > 0:
            return False
        found = None if skip is None else skip.float()
        captured = is_captured(scale.device)
        for optimizer in optimizers:
            _seat_of(optimizer).pending = _Pending(multiplier, found, _marks(optimizer), captured)
            optimizer.grad_scale = scale  # type: ignore[attr-defined]
            if found is not None:
                optimizer.found_inf = found  # type: ignore[attr-defined]
        return True

    def _covers(self, optimizers: Sequence[Optimizer], measured: Sequence[Tensor], key: object) -> bool:
        """Whether ``optimizers`` step what was measured, each parameter once, and nothing else that has a gradient."""
        which = signature(optimizers)
        if self._covered[0] != which or self._covered[1] is not key:
            stepped = [id(member) for optimizer in optimizers for member in members(optimizer)]
            ids = set(map(id, measured))
            with_gradient = {
                id(member) for optimizer in optimizers for member in members(optimizer) if member.grad is not None
            }
            same = set(stepped) >= ids >= with_gradient and len(set(stepped)) == len(stepped)
            self._covered = (which, key, same)
        return self._covered[2]

    def _honours(self, optimizers: Sequence[Optimizer]) -> bool:
        for optimizer in optimizers:
            example = first(optimizer)
            if example.dtype is torch.float64:
                return False  # grad_scale is read as a float32
            kind = (type(optimizer), example.device, example.dtype)
            if kind not in self._honoured:
                if is_captured(example.device):
                    return False  # trying it waits, which a capture forbids
                self._honoured[kind] = honours_grad_scale(*kind)
            if not self._honoured[kind]:
                return False
        return True


def _marks(optimizer: Optimizer) -> list[tuple[Tensor, weakref.ref[Tensor], int]]:
    """The first and the last gradient of each group: looking at all would cost a tenth of the clip."""
    marks = []
    for group in optimizer.param_groups:
        for candidates in (group["params"], reversed(group["params"])):
            parameter = next((one for one in candidates if one.grad is not None), None)
            if parameter is not None:
                marks.append((parameter, weakref.ref(parameter.grad), parameter.grad._version))
    return marks


def settle(optimizers: Sequence[Optimizer]) -> None:
    """Before anything of a new clip: bring clips of ``optimizers`` to their end that no step has used."""
    for optimizer in optimizers:
        seat = _seats.get(optimizer)
        if seat is not None and seat.pending is not None:
            seat.settle(optimizer)


def _fused_now(optimizer: Optimizer) -> bool:
    # A checkpoint of another optimizer, or one group of its own kind, would make torch's step assert half way through.
    return all(group.get("fused") is True for group in optimizer.param_groups)


def _has_state(optimizer: Optimizer) -> bool:
    if type(optimizer) is SGD and not any(group["momentum"] for group in optimizer.param_groups):
        return True
    return all(optimizer.state.get(member) for member in members(optimizer) if member.grad is not None)


def _take_away(optimizer: Optimizer) -> None:
    for name in ("grad_scale", "found_inf"):
        if hasattr(optimizer, name):
            delattr(optimizer, name)


def _multiply_now(optimizer: Optimizer, pending: _Pending) -> None:
    stepped = [member for member in members(optimizer) if member.grad is not None]
    if pending.skip is not None and bool(pending.skip):
        for member in stepped:
            member.grad = None
        return
    with torch.no_grad():
        multiply([member.grad for member in stepped if member.grad is not None], pending.multiplier, uniform=False)


def honours_grad_scale(kind: type[Optimizer], device: torch.device, dtype: torch.dtype) -> bool:
    """Whether ``kind``'s fused step in this torch divides by ``grad_scale`` and heeds ``found_inf``.

    Tried on one element of its own; waits for the device, once.
    """
    try:
        moved = [_try_step(kind, device, dtype, scale, found) for scale, found in ((None, 0.0), (4.0, 0.0), (4.0, 1.0))]
    except Exception:
        return False
    return moved[0] == moved[1] != 0.0 and moved[2] == 0.0


def _try_step(kind: Any, device: torch.device, dtype: torch.dtype, scale: float | None, found: float) -> float:
    parameter = torch.nn.Parameter(torch.zeros(1, device=device, dtype=dtype))
    # A large epsilon, or Adam would move alike by gradients of any size.
    optimizer = kind([parameter], lr=0.5, fused=True, **({} if kind is SGD else {"eps": 1.0}))
    for turn in range(2):  # the first step only makes the state that found_inf needs
        parameter.data.zero_()
        parameter.grad = torch.full_like(parameter, 2.0 * (scale or 1.0))
        if scale is not None:
            optimizer.grad_scale = torch.tensor(scale, device=device)
            optimizer.found_inf = torch.tensor(found * turn, device=device)
        optimizer.step()
    return float(parameter.item())
