"""The loss of a step that several backward passes make up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Losses:
    """Adds up, on their device, the losses that were propagated backward since the last step.

    Frameworks divide each micro-batch's loss by their number before they call backward, so the sum is their mean: the
    loss that the accumulated gradient belongs to.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def add(self, loss: Any, scaler: Any = None, divisor: int = 1) -> None:
        """``loss``: one number with a graph; anything else is left out. ``scaler``: the GradScaler it has gone through.

        ``divisor``: what the framework will divide it by before the backward pass.
        """
        if not (isinstance(loss, Tensor) and loss.numel() == 1):
            return
        value = loss.detach().reshape(())
        if scaler is not None:
            # The scale itself would have to be fetched from the device.
            value = value / scaler.scale(torch.ones_like(value))
        if divisor != 1:
            value = value / divisor
        self._sum = value if self._sum is None else self._sum + value.to(self._sum.device)

    def take(self) -> Tensor | None:
        """The sum, and begin anew; None: there was no backward pass that this was told of."""
        taken, self._sum = self._sum, None
        return taken
