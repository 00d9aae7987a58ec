"""The loss scale of mixed-precision training, and undoing it before norms are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import OptState
from torch.optim import Optimizer

from gradwatch.recorder import MISSING


def unscale(scaler: Any, optimizer: Optimizer) -> None:
    """Unscale the gradients of ``optimizer`` unless that has been done since its last step.

    A second ``unscale_`` raises RuntimeError in torch; the scaler's own notes tell whether one was.
    """
    states = getattr(scaler, "_per_optimizer_states", None)
    if states is None or not scaler.is_enabled():
        return  # a scaler of another make keeps its own order
    if states[id(optimizer)]["stage"] is OptState.READY:
        scaler.unscale_(optimizer)


def tell_scaler(scaler: Any, optimizers: Sequence[Optimizer], total: Tensor) -> bool:
    """On a device, let ``scaler`` leave out the steps of all ``optimizers`` if ``total`` is not finite.

    It looks at each optimizer's gradients on their own, and a NaN of one would spread to the others by the coefficient.
    False: on the CPU, and where the scaler cannot be told; then the gradients have to go.
    """
    if total.device.type == "cpu":
        return False
    found = [
        found
        for optimizer in optimizers
        for found in getattr(scaler, "_per_optimizer_states", {})[id(optimizer)]["found_inf_per_device"].values()
    ]
    for one in found:
        one.add_((~torch.isfinite(total)).to(one.device, one.dtype))
    return len(found) >= len(optimizers)


def loss_scale(scaler: Any) -> torch.Tensor | float:
    """The scale in force; MISSING without a scaler, a tensor where only a device knows it."""
    scale = getattr(scaler, "_scale", None)
    if not isinstance(scale, torch.Tensor):
        return MISSING
    return float(scale) if scale.device.type == "cpu" else scale
