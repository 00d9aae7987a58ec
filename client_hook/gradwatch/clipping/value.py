"""Clipping by value: every element on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.norms import Measurement, dense, measure_norms
from gradwatch.clipping.strategy import Decision, Gradients, Strategy
from gradwatch.clipping.threshold import Scheduled, Threshold


class Value(Strategy):
    """Clamp every gradient element to ``[-clip_value, clip_value]``, as ``torch.nn.utils.clip_grad_value_`` does.

    The recorded norms are L2 norms before clamping. Clip event: some element's magnitude > ``clip_value``. The
    coefficient says how much of the total norm is left: norm after / norm before. A NaN element stays NaN, an infinite
    one becomes ``clip_value``. ``clip_value``: > 0, or a function of the step. Raises ValueError or TypeError
    otherwise; complex gradients have no order, and are left to torch's own error.
    """

    threshold_of = "element"

    def __init__(self, clip_value: Scheduled) -> None:
        self._clip_value = Threshold("clip_value", clip_value)

    @property
    def threshold(self) -> float:
        return self._clip_value.value

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._clip_value.set(value)

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        limit = self._clip_value.at(gradients.step)
        if not gradients.tensors:
            return Decision(1.0, False, limit)
        largest = measure_norms(gradients.tensors, float("inf"), measurement.uniform).norms.max()
        if largest.device.type != "cpu":
            kept, cosine = self._compare(measurement, gradients, limit)
            return Decision(kept, largest > limit, limit, largest, cosine=cosine)
        if largest.item() <= limit:
            return Decision(1.0, False, limit)
        kept, cosine = self._compare(measurement, gradients, limit)
        return Decision(kept.item(), largest.item() > limit, limit, largest, cosine=cosine.item())

    def _compare(self, measurement: Measurement, gradients: Gradients, limit: float) -> tuple[Tensor, Tensor]:
        """Norm after / norm before, and the cosine between both gradients."""
        # Two temporary copies of the gradients, on clipped steps only (on a GPU on every step: asking would wait).
        whole = [dense(gradient) for gradient in gradients.tensors]
        clamped = [gradient.clamp(-limit, limit) for gradient in whole]
        # No product is negative, so their sum, the dot product, is their 1-norm.
        products = [gradient * left for gradient, left in zip(whole, clamped, strict=True)]
        before = measurement.total.double()
        after = measure_norms(clamped, self.norm_type, measurement.uniform).total.double()
        product = measure_norms(products, 1.0, measurement.uniform).total.double()
        return after / before, (product / before / after).clamp(max=1.0)

    def apply(self, measurement: Measurement, gradients: Gradients, decision: Decision) -> None:
        if decision.multiplier is None:
            return
        limit = float(decision.threshold)
        if measurement.uniform:
            torch._foreach_clamp_min_(gradients.tensors, -limit)
            torch._foreach_clamp_max_(gradients.tensors, limit)
        else:
            for gradient in gradients.tensors:
                (gradient._values() if gradient.is_sparse else gradient).clamp_(-limit, limit)

    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        total = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        torch.nn.utils.clip_grad_value_(parameters, self.threshold)
        return total

    def state_dict(self) -> dict[str, Any]:
        return {"threshold": self._clip_value.save()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._clip_value.load(state["threshold"])

    def describe(self) -> dict[str, Any]:
        return {"strategy": "Value", "clip_value": self._clip_value.describe()}
