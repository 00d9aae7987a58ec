"""Normalising: the gradient keeps its direction and gets a set length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.adaptive import on_host
from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.strategy import Decision, Gradients, Strategy
from gradwatch.clipping.threshold import Scheduled, Threshold


class Normalize(Strategy):
    """Multiply every gradient by ``scale / (total norm + eps)``, so that the total norm becomes ``scale``.

    The rule of ``optax.normalize_by_update_norm``, with the L2 norm. Zero gradients stay zero, and those as short as
    ``eps`` fall short of ``scale``. Long gradients shrink and short ones are stretched: the coefficient may be above 1,
    up to ``scale / eps``. Clip event: the gradient shrinks, that is, total norm > ``scale``; a stretch is none.
    An infinite total norm gives the factor 0 and a NaN gives NaN, as in ``torch.nn.utils.clip_grad_norm_``.

    ``scale``: > 0, or a function of the step; infinity leaves the gradients alone. ``eps``: > 0 and finite. Raises
    ValueError or TypeError otherwise.
    """

    def __init__(self, scale: Scheduled = 1.0, eps: float = 1e-6) -> None:
        self._scale = Threshold("scale", scale)
        self._eps = checked_eps(eps, "Normalize(1.0, eps=1e-6)")

    @property
    def threshold(self) -> float:
        return self._scale.value

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._scale.set(value)

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        scale = self._scale.at(gradients.step)
        total = measurement.total
        if scale == math.inf:
            return Decision(1.0, False, scale)
        multiplier = scale / (total + self._eps)
        if not on_host(total):
            # A scale beyond the range of float32 divided by eps would turn zero gradients into NaN.
            multiplier = torch.where(total == 0, 1.0, multiplier)
            return Decision(multiplier, total > scale, scale, multiplier)
        norm, value = total.item(), multiplier.item()
        if norm == 0 or value == 1:
            return Decision(1.0, norm > scale, scale)
        return Decision(value, norm > scale, scale, multiplier)

    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        """Clips at ``scale``: torch has no function that would stretch a short gradient."""
        return torch.nn.utils.clip_grad_norm_(parameters, self.threshold)

    def describe(self) -> dict[str, Any]:
        return {"strategy": "Normalize", "scale": self._scale.describe(), "eps": self._eps}

    def state_dict(self) -> dict[str, Any]:
        return {"threshold": self._scale.save()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scale.load(state["threshold"])


def checked_eps(eps: float, example: str) -> float:
    """A small number to divide by, above 0 and finite. Raises ValueError or TypeError, showing ``example``."""
    if isinstance(eps, bool) or not isinstance(eps, int | float):
        raise TypeError(f"eps must be a number, not {eps!r}: write {example}")
    if not 0 < eps < math.inf:
        raise ValueError(f"eps must be above 0 and finite, not {eps!r}: write {example}")
    return float(eps)
