"""Folding the coefficient into a fused optimizer's step, which then reads every gradient once instead of three times.

torch's fused kernels divide by ``optimizer.grad_scale`` and leave everything as it is where ``optimizer.found_inf`` is
1 (``torch/optim/adamw.py``, ``torch/amp/grad_scaler.py``). Both are set at the clip and taken away right after the step
by a hook. Nothing is folded unless the step before was seen to run with these hooks, plainly fused and without a
closure; a compiled step, for example, runs none, and there the gradients are multiplied as ever.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from gradwatch.clipping.strategy import multiply
from gradwatch.device_recorder import is_captured

_ABLE: Final = (Adam, AdamW, SGD, Adagrad)


@dataclass(slots=True)
class _Pending:
    """What the next step of an optimizer is to multiply by; it lies in the optimizer's attributes meanwhile."""

    multiplier: Tensor
    scale: Tensor
    skip: Tensor | None


@dataclass(slots=True)
class _Seat:
    """One optimizer as this module sees it."""

    able: bool
    proven: bool = False
    """The last step ran with our hooks, plainly fused and without a closure."""
    plain: bool = False
    """The step that runs now does so."""
    pending: _Pending | None = None
    scaler_at_work: bool = False


class Fold:
    """The fused-optimizer path of one monitor."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._seats: dict[int, _Seat] = {}
        self._covered: tuple[list[int], int, object, bool] = ([], 0, None, False)
        self._honoured: dict[object, bool] = {}
        self._handles: list[Any] = []
        self._off = False
        for optimizer in optimizers:
            self._seats[id(optimizer)] = _Seat(type(optimizer) in _ABLE)
            if type(optimizer) in _ABLE:
                self._handles.append(optimizer.register_step_pre_hook(_Before(weakref.ref(self))))
                self._handles.append(optimizer.register_step_post_hook(_After(weakref.ref(self))))

    def close(self) -> None:
        """Take the hooks away; nothing is folded any more."""
        self._off = True
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def ready(self, optimizers: Sequence[Optimizer], measured: Sequence[Tensor], key: object) -> bool:
        """Whether the next step of all ``optimizers`` can be folded.

        ``measured``: the parameters whose gradients were measured; they must be those that the optimizers will step.
        ``key`` stays the same object while ``measured`` is the same. To be asked once at every clip.
        """
        if self._off or not optimizers:
            return False
        ready = True
        for optimizer in optimizers:
            seat = self._seats.get(id(optimizer))
            if seat is None:
                return False
            self._clear(optimizer, seat)
            ready &= seat.able and seat.proven and _fused_now(optimizer) and not hasattr(optimizer, "grad_scale")
            seat.proven = False
        return ready and not self._off and self._covers(optimizers, measured, key) and self._honours(optimizers)

    def can_skip(self, optimizers: Sequence[Optimizer]) -> bool:
        """Whether ``found_inf`` is safe: fused SGD would later read a buffer that a skipped first step left unset."""
        return all(_has_state(optimizer) for optimizer in optimizers)

    def arm(self, optimizers: Sequence[Optimizer], multiplier: Tensor, skip: Tensor | None) -> None:
        """Leave the multiplication by ``multiplier`` (0-dimensional) to the next step of ``optimizers``.

        ``skip``: 0-dimensional, not 0: that step changes nothing.
        """
        scale = multiplier.float().reciprocal()
        found = None if skip is None else skip.float()
        for optimizer in optimizers:
            self._seats[id(optimizer)].pending = _Pending(multiplier, scale, found)
            optimizer.grad_scale = scale  # type: ignore[attr-defined]
            if found is not None:
                optimizer.found_inf = found  # type: ignore[attr-defined]

    def ours(self, optimizer: Optimizer) -> bool:
        """Whether the coefficient of the last clip now waits in ``optimizer``'s attributes."""
        seat = self._seats.get(id(optimizer))
        return seat is not None and seat.pending is not None

    def _clear(self, optimizer: Optimizer, seat: _Seat) -> None:
        """Take away what no step, or one that failed or was compiled, has left: the hook did not run then."""
        if seat.pending is not None:
            _take_away(optimizer)
            seat.pending = None

    def _covers(self, optimizers: Sequence[Optimizer], measured: Sequence[Tensor], key: object) -> bool:
        """Whether each measured parameter is stepped by ``optimizers``. (All that they step are measured anyway.)"""
        which = [id(optimizer) for optimizer in optimizers]
        count = sum(len(group["params"]) for optimizer in optimizers for group in optimizer.param_groups)
        if self._covered[:2] != (which, count) or self._covered[2] is not key:
            stepped = {id(member) for one in optimizers for group in one.param_groups for member in group["params"]}
            self._covered = (which, count, key, stepped.issuperset(map(id, measured)))
        return self._covered[3]

    def _honours(self, optimizers: Sequence[Optimizer]) -> bool:
        for optimizer in optimizers:
            first = optimizer.param_groups[0]["params"][0]
            kind = (type(optimizer), first.device, first.dtype)
            if kind not in self._honoured:
                if is_captured(first.device):
                    return False  # trying it waits, which a capture forbids
                self._honoured[kind] = honours_grad_scale(*kind)
            if not self._honoured[kind]:
                return False
        return True

    # Around a step.

    def before_step(self, optimizer: Optimizer, closure: Any) -> None:
        seat = self._seats[id(optimizer)]
        seat.plain = closure is None and _fused_now(optimizer)
        pending = seat.pending
        if pending is None:
            return
        found = getattr(optimizer, "found_inf", None)
        # A GradScaler sets both for this step, grad_scale with ours in it, and deletes both after it.
        seat.scaler_at_work = found is not None and found is not pending.skip
        if not seat.plain and not seat.scaler_at_work:
            _take_away(optimizer)
            seat.pending = None
            _multiply_now(optimizer, pending)
        elif pending.skip is not None and found is not None and seat.scaler_at_work:
            optimizer.found_inf = torch.maximum(found, pending.skip)  # type: ignore[attr-defined]

    def after_step(self, optimizer: Optimizer) -> None:
        seat = self._seats[id(optimizer)]
        seat.proven = seat.plain
        if seat.pending is not None and not seat.scaler_at_work:
            _take_away(optimizer)
        seat.pending = None


class _Hook:
    """Does nothing while a compiler traces the step, and nothing once the monitor is gone."""

    def __init__(self, fold: weakref.ref[Fold]) -> None:
        self._fold = fold


class _Before(_Hook):
    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        fold = self._fold()
        if fold is not None:
            fold.before_step(optimizer, kwargs.get("closure", args[1] if len(args) > 1 else None))


class _After(_Hook):
    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        fold = self._fold()
        if fold is not None:
            fold.after_step(optimizer)


def _fused_now(optimizer: Optimizer) -> bool:
    # A checkpoint of another optimizer, or one group of its own kind, would make torch's step assert half way through.
    return all(group.get("fused") is True for group in optimizer.param_groups)


def _has_state(optimizer: Optimizer) -> bool:
    if type(optimizer) is SGD and not any(group["momentum"] for group in optimizer.param_groups):
        return True
    members = (member for group in optimizer.param_groups for member in group["params"])
    return all(optimizer.state.get(member) for member in members if member.grad is not None)


def _take_away(optimizer: Optimizer) -> None:
    for name in ("grad_scale", "found_inf"):
        if hasattr(optimizer, name):
            delattr(optimizer, name)


def _multiply_now(optimizer: Optimizer, pending: _Pending) -> None:
    members = [member for group in optimizer.param_groups for member in group["params"] if member.grad is not None]
    if pending.skip is not None and bool(pending.skip):
        for member in members:
            member.grad = None
        return
    with torch.no_grad():
        multiply([member.grad for member in members], pending.multiplier, uniform=False)


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
