"""EMARatio: a multiple of the running mean of the norms, of all gradients together or of each layer."""

from __future__ import annotations

import math
from typing import Any, cast

from torch import Tensor

from gradwatch.clipping.adaptive import (
    Number,
    Truth,
    at_least,
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
from gradwatch.clipping.threshold import Scheduled


class EMARatio(Layered):
    """Clip a norm that is more than ``ratio`` times the exponential moving average of the clipped norms before it.

    The rule is OLMo's ``max_grad_norm_ratio`` (allenai/OLMo, ``olmo/optim.py``), which applies it to every parameter
    tensor: ``per_layer=True``. By default it looks at the total norm, and one factor scales all gradients, so that
    their direction stays. The average starts at the first norm; because a clipped norm enters it as clipped, the limit
    grows by a factor of at most 1 + (1 - ``decay``) (``ratio`` - 1) a step.

    Clip event: total norm > ``ratio`` times its average; per layer: some layer's norm is; in both: the total norm that
    is left > ``cap``. Per layer the recorded threshold is the total norm that all layers at their limits would have.
    Unlike in OLMo a norm below its limit is left alone however small (the 1e-6 in OLMo's divisor makes layers with
    norms of 1e-7 shrink from step to step), and norms that are 0 or not finite never enter an average.

    ``ratio``: above 1; ``decay``: weight of the past, between 0 and 1 (OLMo: the larger of Adam's betas); ``warmup``:
    steps in which only ``cap`` holds, while the averages form; ``cap``: of the total norm, see ``Adaptive``. Raises
    ValueError or TypeError otherwise.
    """

    def __init__(
        self,
        ratio: float = 2.0,
        decay: float = 0.99,
        warmup: int = 0,
        per_layer: bool = False,
        cap: Scheduled | None = None,
    ) -> None:
        advice = "2.0 clips at twice the average (at 1 or less the limit would shrink for ever)"
        self.ratio = in_range("ratio", ratio, 1, math.inf, advice)
        self.decay = in_range("decay", decay, 0, 1, "0.99 averages over about 100 steps")
        self.warmup = at_least("warmup", warmup, 0, "0 clips from the second step on")
        self.per_layer = bool(per_layer)
        self.threshold_of = "layer" if per_layer else "total norm"
        super().__init__(cap, average=0.0, count=0.0)

    def follow(self, norm: Number, state: dict[str, Tensor]) -> Number:
        average, count = read(state["average"]), read(state["count"])
        limit = choose((count >= self.warmup) & (count > 0), self.ratio * average, math.inf)
        self._count(norm, state)
        write(state["average"], self._averaged(norm, average, limit, average > 0))
        return limit

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        if not self.per_layer or not gradients.tensors:
            return super().decide(measurement, gradients)
        device = measurement.norms.device
        norms = measurement.norms.to(widest_float(device))
        state = self._state.on(device)
        averages = self.of_layers(gradients, device)
        active = read(state["count"]) >= self.warmup
        limits = choose(averages.isfinite() & active, self.ratio * averages, math.inf)
        self._count(read(measurement.total), state)
        decision, _, _ = scale_layers(norms, limits, self._cap.at(gradients.step))
        moved = self._averaged(norms, averages, limits, averages.isfinite())
        self.change_layers(gradients, cast(Tensor, moved))
        return self.remember(decision)

    def _count(self, norm: Number, state: dict[str, Tensor]) -> None:
        write(state["count"], read(state["count"]) + enters(norm))

    def _averaged(self, norm: Number, average: Number, limit: Number, seen: Truth) -> Number:
        kept = choose(norm > limit, limit, norm)
        moved = choose(seen, average + (1 - self.decay) * (kept - average), norm)
        return choose(enters(norm), moved, average)

    def arguments(self) -> dict[str, Any]:
        return {"ratio": self.ratio, "decay": self.decay, "warmup": self.warmup, "per_layer": self.per_layer}
