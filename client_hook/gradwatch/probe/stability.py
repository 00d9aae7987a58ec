"""Up to which sharpness the optimizer in use is stable.

What a line probe measures is ``2 / eta_c``, where ``eta_c`` is the least learning rate at which the update's direction
would raise the loss (critical sharpness, Kalra et al. 2026, arXiv 2601.16979). On a quadratic it is
``D'HD / D'g`` along the update ``D`` of learning rate 1 (H: Hessian, g: gradient). Known bounds are on the largest
eigenvalue h of H (Cohen et al. 2021, arXiv 2103.00065, appendix B; c is the weight decay, which adds itself to h):

    gradient descent            h < 2 / lr - c
    heavy ball, momentum m      h < (2 + 2 m) / lr - c
    Nesterov, momentum m        h < (2 + 2 m) / ((1 + 2 m) lr) - c

Momentum adds the gradients of many steps up, so where they change slowly D is g / (1 - m) and the sharpness measured
along it h / (1 - m): a bound on the latter is the bound on h divided by 1 - m. (Dampening t makes both D and the step
1 - t times as long: its bound on what is measured is the same, but for c.) Adam's first moment is an average, so that
there D is the preconditioned gradient, and h an eigenvalue of the preconditioned Hessian:

    Adam                        h < (2 + 2 b) / ((1 - b) lr) - c
    AdamW                       h < (2 + 2 b) / ((1 - b) lr) - c (1 + b) / (1 - b)

(b is the first beta. The paper states the first one with AdamW's decay too; what goes past the average weighs more.
Adam's own decay is preconditioned as the gradient is, so c stands for its preconditioned size. Either is small beside
1 / lr.) Along an update in which an oscillation has begun, gradients cancel and what is measured is lower: it comes
out near 2 / lr however large the momentum. So the bound is where oscillations begin, not where they would end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer


class Stability(NamedTuple):
    """Up to which critical sharpness an optimizer is stable on a quadratic."""

    value: float
    """In units of the loss per squared unit of the update at learning rate 1; NaN: not known."""
    rule: str
    """The formula in the optimizer's own words, or why there is none."""


def stability_threshold(optimizer: Optimizer, learning_rate: float | None = None) -> Stability:
    """The threshold of the first parameter group.

    ``learning_rate``: where it is known already; else it is the group's, which counts as unknown where only a device
    knows it.
    """
    kind = type(optimizer)
    group = optimizer.param_groups[0]
    rate = _number(group["lr"]) if learning_rate is None else learning_rate
    if kind not in (SGD, Adam, AdamW):
        return _none(kind.__name__)
    if group["maximize"]:
        return _none("an optimizer that maximizes")
    if not rate > 0:
        return _none("a learning rate of 0" if rate == 0 else "a learning rate that only the device knows")
    decay = _number(group["weight_decay"])
    return _of_sgd(group, rate, decay) if kind is SGD else _of_adam(group, rate, decay)


def _of_sgd(group: Mapping[str, Any], rate: float, decay: float) -> Stability:
    momentum, dampening = group["momentum"], group["dampening"]
    if not momentum:
        return Stability(2 / rate - decay, "2 / lr" + (" - wd" if decay else ""))
    if momentum >= 1 or not 0 <= dampening < 1:
        return _none(f"momentum {momentum:g} with dampening {dampening:g}")
    gain, words = 1 - momentum, "(2 + 2 momentum) / ((1 - momentum) lr)"
    value = (2 + 2 * momentum) / (gain * rate)
    if group["nesterov"]:
        value, words = value / (1 + 2 * momentum), "(2 + 2 momentum) / ((1 + 2 momentum) (1 - momentum) lr)"
    if decay:
        words += " - wd (1 - dampening) / (1 - momentum)" if dampening else " - wd / (1 - momentum)"
    return Stability(value - decay * (1 - dampening) / gain, words)


def _of_adam(group: Mapping[str, Any], rate: float, decay: float) -> Stability:
    beta = _number(group["betas"][0])
    value, words = (2 + 2 * beta) / ((1 - beta) * rate), "(2 + 2 beta1) / ((1 - beta1) lr)"
    if decay and group.get("decoupled_weight_decay", False):
        return Stability(value - decay * (1 + beta) / (1 - beta), words + " - wd (1 + beta1) / (1 - beta1)")
    return Stability(value - decay, words + (" - wd" if decay else ""))


def _number(value: Any) -> float:
    """NaN where the host would have to wait for it."""
    return math.nan if isinstance(value, Tensor) and value.device.type != "cpu" else float(value)


def _none(of: str) -> Stability:
    return Stability(math.nan, f"no stability threshold is known for {of}")
