"""The coefficient that brings the total norm down to a threshold."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.strategy import Decision

EPSILON: Final = 1e-6  # torch.nn.utils.clip_grad_norm_ adds it to the norm before it divides


def coefficient_of(total: Tensor, threshold: Tensor | float) -> Tensor:
    """``min(1, threshold / (total + 1e-6))``, spelled as torch spells it.

    A Python division of doubles would round differently in about a quarter of the cases.
    """
    return torch.clamp(threshold / (total + EPSILON), max=1.0)


def scale_down(measurement: Measurement, threshold: Tensor | float, skip: Tensor | bool = False) -> Decision:
    """Clip the total norm by ``threshold`` (0-dimensional, above 0). Clip event: total norm > threshold."""
    total = measurement.total
    if total.device.type != "cpu":
        # A float64 threshold, as strategies keep, would make the coefficient float64, which foreach takes the slow way.
        coefficient = coefficient_of(total, threshold).to(total.dtype)
        return Decision(coefficient, total > threshold, threshold, coefficient, skip=skip)
    limit = threshold.item() if isinstance(threshold, Tensor) else threshold
    norm = total.item()
    skipped = bool(skip)
    # Far below the threshold the coefficient is 1 whatever the rounding; the tensor arithmetic is for the rest.
    if norm < 0.999 * limit - EPSILON or (limit == math.inf and norm < math.inf):
        return Decision(1.0, False, limit, skip=skipped)
    coefficient = coefficient_of(total, limit)
    value = coefficient.item()
    return Decision(value, norm > limit, limit, None if value == 1.0 else coefficient, skip=skipped)
