"""The loss scale of mixed-precision training, and undoing it before norms are taken."""

from __future__ import annotations

from typing import Any

import torch
from torch.amp.grad_scaler import OptState
from torch.optim import Optimizer

from gradwatch.recorder import MISSING


def unscale(scaler: Any, optimizer: Optimizer) -> None:
    """Unscale the gradients of ``optimizer`` unless that has been done since its last step.

    A second ``unscale_`` raises RuntimeError in torch; the scaler's own notes tell whether one was.
    """
    if not scaler.is_enabled():
        return
    if scaler._per_optimizer_states[id(optimizer)]["stage"] is OptState.READY:
        scaler.unscale_(optimizer)


def loss_scale(scaler: Any) -> torch.Tensor | float:
    """The scale in force; MISSING without a scaler, a tensor where only a device knows it."""
    scale = getattr(scaler, "_scale", None)
    if not isinstance(scale, torch.Tensor):
        return MISSING
    return float(scale) if scale.device.type == "cpu" else scale
