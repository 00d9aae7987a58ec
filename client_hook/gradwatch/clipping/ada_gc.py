"""AdaGC: every layer is clipped by a running mean of its own norms."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.adaptive import (
    Number,
    Truth,
    at_least,
    capped,
    choose,
    enters,
    in_range,
    read,
    write,
)
from gradwatch.clipping.layered import Layered, scale_layers
from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.state import widest_float
from gradwatch.clipping.strategy import Decision, Gradients
from gradwatch.clipping.threshold import Scheduled, Threshold


class AdaGC(Layered):
    """Clip each layer's gradient at ``lambda_rel`` times the exponential moving average of its clipped norms.

    Wang et al., 2025 (arXiv:2502.11034); defaults as in pytorch_optimizer's ``AdaGC``. In the first ``warmup`` steps
    the total norm is clipped at ``lambda_abs``, and each layer remembers gamma, the smallest norm it was left with.
    After that its gradient is scaled to at most ``lambda_rel`` * gamma, and gamma becomes ``beta`` * gamma +
    (1 - ``beta``) * the norm that is left. A layer first seen after the warm-up begins with its own norm, and one
    without a gradient keeps its gamma. (pytorch_optimizer's warm-up is one step shorter than its ``warmup_steps``.)

    Clip event: some layer was scaled, in the warm-up the total norm was, or what is left exceeds ``cap``. Recorded as
    the threshold: ``lambda_abs`` in the warm-up, then the total norm that all layers at their limits would have.
    Unlike in the reference a norm that is 0 or not finite never enters gamma: one zero in the warm-up would freeze its
    layer for ever, one NaN would end its clipping. Warm-up steps are counted while the total norm is finite and not 0.

    ``lambda_rel``: above 1; ``beta``: between 0 and 1; ``warmup``: steps, 0 for none; ``lambda_abs``: above 0, or a
    function of the step; ``cap``: of the total norm, always, see ``Adaptive``. Raises ValueError or TypeError
    otherwise.
    """

    threshold_of = "layer"

    def __init__(
        self,
        lambda_rel: float = 1.05,
        beta: float = 0.98,
        warmup: int = 100,
        lambda_abs: Scheduled = 1.0,
        cap: Scheduled | None = None,
    ) -> None:
        advice = "1.05 is the usual value (at 1 or less the limits would shrink for ever)"
        self.lambda_rel = in_range("lambda_rel", lambda_rel, 1, math.inf, advice)
        self.beta = in_range("beta", beta, 0, 1, "0.98 is the usual value")
        self.warmup = at_least("warmup", warmup, 0, "100 is the usual value")
        self._lambda_abs = Threshold("lambda_abs", lambda_abs, "1.0 is the usual value")
        super().__init__(cap, count=0.0)

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        if not gradients.tensors:
            return self.without_gradients()
        device = measurement.norms.device
        norms = measurement.norms.to(widest_float(device))
        gamma = self.of_layers(gradients, device)
        warm, cap = self._warming_up(measurement.total, gradients.step)
        limits = choose(gamma.isnan() | warm, math.inf, self.lambda_rel * gamma)
        decision, left, part = scale_layers(norms, limits, cap)
        left = choose(warm, left * part, left)  # what a cap takes later does not count
        moved = choose(warm, torch.fmin(gamma, left), choose(gamma.isnan(), left, gamma.lerp(left, 1 - self.beta)))
        self.change_layers(gradients, choose(enters(left), moved, gamma))
        return self.remember(decision)

    def _warming_up(self, total: Tensor, step: int) -> tuple[Truth, Number]:
        """Whether this is a warm-up step, and the cap of its total norm; counts the step."""
        count = self._state.on(total.device)["count"]
        warm = read(count) < self.warmup
        cap, first = self._cap.at(step), self._lambda_abs.at(step)
        write(count, read(count) + enters(read(total)))
        return warm, choose(warm, capped(first, cap), cap)

    def arguments(self) -> dict[str, Any]:
        return {
            "lambda_rel": self.lambda_rel,
            "beta": self.beta,
            "warmup": self.warmup,
            "lambda_abs": self._lambda_abs.describe(),
        }
