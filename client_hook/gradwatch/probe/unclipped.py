"""Where the step would have led without the clip: the raw step in closed form, checked against the one taken."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradwatch.probe.activity import Bench
from gradwatch.probe.closed_form import stepped, unsupported
from gradwatch.probe.shadow import copies

_TOLERANCE = 0.01  # of the step's length: a wrong formula or a changed learning rate is off by far more


class Unclipped:
    """The unclipped step beside the clipped one, of one step at a time.

    At the clip: ``take`` before the gradients are changed and ``after_change`` afterwards; at the next: ``settle``.
    The clipped step is computed by the same formula for one tensor, and a verdict is trusted only where it agrees with
    what the optimizer did.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.weights: list[Tensor] | None = None
        self._clipped: Tensor | bool = False
        self._checked: Tensor | None = None
        self._expected: Tensor | None = None
        self._differed = 0

    def unsupported(self) -> str | None:
        """Why the raw step cannot be computed; None: it can."""
        given = [weight for weight in self._bench.originals if weight.grad is not None]
        return unsupported(self._bench.optimizers, given)

    def take(self, clipped: Tensor | bool) -> None:
        """Compute the raw step from the gradients as they are; ``clipped``: whether they will be clipped."""
        originals, optimizer = self._bench.originals, self._bench.optimizers[0]
        given = [weight for weight in originals if weight.grad is not None]
        if not given:
            return
        raw = iter(stepped(optimizer, given, [_gradient(weight) for weight in given]))
        self.weights = [next(raw) if weight.grad is not None else copies([weight])[0] for weight in originals]
        self._clipped = clipped
        self._checked = min(given, key=Tensor.numel)

    def after_change(self) -> None:
        """The gradients are now those that the optimizer gets, but for a coefficient that it is to divide by itself."""
        if self._checked is None or self._checked.grad is None:
            return
        optimizer = self._bench.optimizers[0]
        gradient = _gradient(self._checked)
        scale = getattr(optimizer, "grad_scale", None)
        if scale is not None:
            gradient = gradient / scale
        self._expected = stepped(optimizer, [self._checked], [gradient])[0]

    def settle(self, old: Sequence[Tensor]) -> list[Tensor]:
        """Whether the optimizer's step was the one expected, and whether it was clipped; nothing where none was taken.

        ``old``: the weights before the step. 0-dimensional tensors on the training's device.
        """
        checked, expected = self._checked, self._expected
        self._checked = self._expected = None
        if checked is None or expected is None:
            self.release()
            return []
        before = next(start for start, weight in zip(old, self._bench.originals, strict=True) if weight is checked)
        length, off = (checked - before).norm(), (checked - expected).norm()
        rounding = 4 * torch.finfo(checked.dtype).eps * checked.norm()
        agrees = off <= _TOLERANCE * length + rounding
        # (A number that is copied to a device would wait for it; one that is filled in there does not.)
        known = self._clipped if isinstance(self._clipped, Tensor) else torch.full_like(agrees, self._clipped)
        return [agrees, known]

    def disagrees(self, *, agrees: bool, times: int) -> bool:
        """Whether the formula was wrong ``times`` times in a row by now."""
        self._differed = 0 if agrees else self._differed + 1
        return self._differed >= times

    def release(self) -> None:
        """Let go of the raw step's memory; whoever uses it has taken it."""
        self.weights = None


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad
