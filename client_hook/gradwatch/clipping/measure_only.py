"""No clipping: ``clip=None``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.strategy import Decision, Gradients, Strategy


class MeasureOnly(Strategy):
    """Measure and record, change nothing. Its threshold is infinity and there is no clip event.

    This is not ``GlobalNorm(inf)``: torch's arithmetic gives inf / inf = NaN there once the norm overflows.
    """

    threshold_of = "nothing"

    @property
    def threshold(self) -> float:
        return math.inf

    @threshold.setter
    def threshold(self, value: float) -> None:
        if value != math.inf:
            raise ValueError("this monitor only measures (clip=None): give watch(..., clip=1.0) to have a threshold")

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        return Decision(1.0, False, math.inf)

    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def describe(self) -> dict[str, Any]:
        return {"strategy": "MeasureOnly"}
