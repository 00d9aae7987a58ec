"""Clipping by the global norm: all gradients seen as one vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from gradwatch.clipping.strategy import Decision, Measurement, Strategy

_EPSILON: Final = 1e-6  # torch.nn.utils.clip_grad_norm_ adds it to the total norm before it divides


class GlobalNorm(Strategy):
    """Multiply every gradient by ``min(1, max_norm / (total norm + 1e-6))``.

    The formula and its float arithmetic are those of ``torch.nn.utils.clip_grad_norm_`` (Pascanu et al., 2013,
    arXiv:1211.5063), so the result is the same to the last bit. Clip event: total norm > ``max_norm``. (The coefficient
    is already below 1 at a total norm of exactly ``max_norm``; that is torch's rounding, not a clip event.)

    ``max_norm``: threshold, > 0, infinity to measure only; ``norm_type``: p >= 1 or infinity.
    Raises ValueError when either is out of range.
    """

    def __init__(self, max_norm: float, norm_type: float = 2.0) -> None:
        self.norm_type = float(norm_type)
        if not self.norm_type >= 1:
            raise ValueError(f"norm_type must be at least 1 or infinity, not {norm_type!r}: 2.0 is the usual norm")
        self.threshold = max_norm

    @property
    def threshold(self) -> float:
        return self._max_norm

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not float(value) > 0:
            raise ValueError(f"max_norm must be above 0, not {value!r}: write clip=None to measure without clipping")
        self._max_norm = float(value)

    def decide(self, measurement: Measurement, gradients: list[Tensor]) -> Decision:
        if measurement.total.device.type != "cpu":
            return self._decide_on_device(measurement.total)
        total = measurement.total.item()
        # Far below the threshold the coefficient is 1 whatever the rounding; the tensor arithmetic is for the rest.
        if total < 0.999 * self._max_norm - _EPSILON or (self._max_norm == math.inf and total < math.inf):
            return Decision(1.0, False, self._max_norm)
        coefficient = self._coefficient(measurement.total)
        value = coefficient.item()
        return Decision(value, total > self._max_norm, self._max_norm, None if value == 1.0 else coefficient)

    def _decide_on_device(self, total: Tensor) -> Decision:
        coefficient = self._coefficient(total)
        return Decision(coefficient, total > self._max_norm, self._max_norm, coefficient)

    def _coefficient(self, total: Tensor) -> Tensor:
        # Spelled as torch spells it: a Python division of doubles rounds differently in about a quarter of the cases.
        return torch.clamp(self._max_norm / (total + _EPSILON), max=1.0)

    def apply(self, measurement: Measurement, gradients: list[Tensor], decision: Decision) -> None:
        multiplier = decision.multiplier
        if multiplier is None:
            return
        if measurement.uniform:
            torch._foreach_mul_(gradients, multiplier)
        else:
            for gradient in gradients:
                gradient.mul_(multiplier.to(gradient.device))

    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        return torch.nn.utils.clip_grad_norm_(parameters, self._max_norm, self.norm_type)

    def describe(self) -> dict[str, Any]:
        norm_type = "inf" if math.isinf(self.norm_type) else self.norm_type
        max_norm = "inf" if math.isinf(self._max_norm) else self._max_norm
        return {"strategy": "GlobalNorm", "max_norm": max_norm, "norm_type": norm_type}
