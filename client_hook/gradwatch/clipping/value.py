"""Clipping by value: every element on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.strategy import Decision, Measurement, Strategy, measure_norms


class Value(Strategy):
    """Clamp every gradient element to ``[-clip_value, clip_value]``, as ``torch.nn.utils.clip_grad_value_`` does.

    The recorded norms are L2 norms before clamping. Clip event: some element's magnitude > ``clip_value``. The
    coefficient says how much of the total norm is left: norm after / norm before. A NaN element stays NaN, an infinite
    one becomes ``clip_value``. Raises ValueError unless ``clip_value`` > 0.
    """

    def __init__(self, clip_value: float) -> None:
        self.threshold = clip_value

    @property
    def threshold(self) -> float:
        return self._clip_value

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not float(value) > 0:
            raise ValueError(f"clip_value must be above 0, not {value!r}: write clip=None to measure without clipping")
        self._clip_value = float(value)

    def decide(self, measurement: Measurement, gradients: list[Tensor]) -> Decision:
        if not gradients:
            return Decision(1.0, False, self._clip_value)
        largest = measure_norms(gradients, float("inf"), measurement.uniform).norms.max()
        if largest.device.type != "cpu":
            return Decision(self._kept(measurement, gradients), largest > self._clip_value, self._clip_value, largest)
        if largest.item() <= self._clip_value:
            return Decision(1.0, False, self._clip_value)
        kept = self._kept(measurement, gradients).item()
        return Decision(kept, largest.item() > self._clip_value, self._clip_value, largest)

    def _kept(self, measurement: Measurement, gradients: list[Tensor]) -> Tensor:
        # One temporary copy of the gradients, on clipped steps only (on a GPU: on every step, since asking would wait).
        clamped = [gradient.clamp(-self._clip_value, self._clip_value) for gradient in gradients]
        return measure_norms(clamped, self.norm_type, measurement.uniform).total / measurement.total

    def apply(self, measurement: Measurement, gradients: list[Tensor], decision: Decision) -> None:
        if decision.multiplier is None:
            return
        if measurement.uniform:
            torch._foreach_clamp_min_(gradients, -self._clip_value)
            torch._foreach_clamp_max_(gradients, self._clip_value)
        else:
            for gradient in gradients:
                gradient.clamp_(-self._clip_value, self._clip_value)

    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        total = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        torch.nn.utils.clip_grad_value_(parameters, self._clip_value)
        return total

    def describe(self) -> dict[str, Any]:
        return {"strategy": "Value", "clip_value": self._clip_value}
