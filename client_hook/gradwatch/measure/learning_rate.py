"""The learning rate in force."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer

from gradwatch.recorder import MISSING


def learning_rate(optimizers: Sequence[Optimizer]) -> Tensor | float:
    """Learning rate of the first parameter group; a tensor where only a device knows it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            rate = group.get("lr", MISSING)
            if isinstance(rate, Tensor):
                return float(rate) if rate.device.type == "cpu" else rate
            return float(rate)
    return MISSING
