"""Clipping by the global norm: all gradients seen as one vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.scaling import scale_down
from gradwatch.clipping.strategy import Decision, Gradients, Strategy
from gradwatch.clipping.threshold import Scheduled, Threshold


class GlobalNorm(Strategy):
    """Multiply every gradient by ``min(1, max_norm / (total norm + 1e-6))``.

    The formula and its float arithmetic are those of ``torch.nn.utils.clip_grad_norm_`` (Pascanu et al., 2013,
    arXiv:1211.5063), so for float32 and float64 the result is the same to the last bit. Clip event: total norm >
    ``max_norm``. (The coefficient is already below 1 at a total norm of exactly ``max_norm``; that is torch's rounding,
    not a clip event.)

    ``max_norm``: threshold, > 0, infinity to measure only, or a function of the step; ``norm_type``: p >= 1 or
    infinity. Raises ValueError or TypeError when either is out of range.
    """

    def __init__(self, max_norm: Scheduled, norm_type: float = 2.0) -> None:
        self.norm_type = checked_norm_type(norm_type)
        self._max_norm = Threshold("max_norm", max_norm)

    @property
    def threshold(self) -> float:
        return self._max_norm.value

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._max_norm.set(value)

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        return scale_down(measurement, self._max_norm.at(gradients.step))

    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        return torch.nn.utils.clip_grad_norm_(parameters, self.threshold, self.norm_type)

    def state_dict(self) -> dict[str, Any]:
        return {"threshold": self._max_norm.save()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._max_norm.load(state["threshold"])

    def describe(self) -> dict[str, Any]:
        return {
            "strategy": "GlobalNorm",
            "max_norm": self._max_norm.describe(),
            "norm_type": "inf" if math.isinf(self.norm_type) else self.norm_type,
        }


def checked_norm_type(norm_type: float) -> float:
    """The p of a norm. Raises ValueError unless it is at least 1."""
    if not float(norm_type) >= 1:
        raise ValueError(f"norm_type must be at least 1 or infinity, not {norm_type!r}: 2.0 is the usual norm")
    return float(norm_type)
