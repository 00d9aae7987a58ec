"""How far clipping scales down each layer, where a strategy has a factor for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gradwatch.clipping.strategy import Decision


def layer_coefficients(decision: Decision, indices: Sequence[int], device: torch.device) -> Tensor:
    """The factor that each of the gradients at ``indices`` is multiplied by: shape (indices,), float32, a copy.

    1 where the decision has no factors. (What a strategy does besides, such as clamping elements, is no factor.)
    """
    if decision.multiplier is not None:
        return decision.multiplier.float().expand(len(indices)).clone()
    if decision.factors is None:
        return torch.ones(len(indices), dtype=torch.float32, device=device)
    if list(indices) == list(range(len(decision.factors))):
        return decision.factors.to(torch.float32, copy=True)
    # One by one, because a list of indices would be sent to the device, and the training would wait for that.
    factors = decision.factors.unbind()
    return torch.stack([factors[index].float() for index in indices])
