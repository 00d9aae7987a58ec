"""The update-to-weight ratio: how far one optimizer step moves a layer, relative to its size.

About 1e-3 is usual (CS231n, "Ratio of weights:updates").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from gradwatch.measure.local_part import every, local_part
from gradwatch.measure.weight_norm import l2_norms

MOST_BYTES: Final = 64 << 20  # of weights copied at a time
ABSENT: Final = -1.0  # where a ratio would stand that does not exist; a ratio is never negative

_WIDE: Final = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def copied_bytes(weight: Tensor) -> int:
    """What ``UpdateRatio`` copies of ``weight``, at most MOST_BYTES or one row; 0: it cannot take it."""
    part = _measured_part(weight)
    return 0 if part is None else part.numel() * _wide(part.dtype).itemsize


class UpdateRatio:
    """``||w' - w|| / ||w||`` of each of ``weights``: w is copied now, w' is what they hold when ``finish`` is called.

    L2 norms, in float32 for weights of half precision. A weight above MOST_BYTES is measured over every k-th slice of
    its first dimension (of its longest, if that has too few), a sharded one (DTensor) over the part that this rank
    holds: both norms over the same part. An optimizer step that was skipped gives 0. The weights (of one device, none
    empty) are only read.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = list(weights)
        parts = self._parts()
        self._before = [torch.empty_like(part, dtype=_wide(part.dtype), requires_grad=False) for part in parts]
        torch._foreach_copy_(self._before, parts)

    def _parts(self) -> list[Tensor]:
        return [part for weight in self.weights if (part := _measured_part(weight)) is not None]

    def finish(self) -> Tensor | None:
        """Shape (weights,), float32; ABSENT where the copied weights had norm 0. To be called once.

        None when a weight has another shape by now.
        """
        before, now = self._before, self._parts()
        self._before = []
        if [part.shape for part in before] != [part.shape for part in now]:
            return None
        size = torch.stack([norm.float() for norm in l2_norms(before)])
        torch._foreach_sub_(before, now)
        moved = torch.stack([norm.float() for norm in l2_norms(before)])
        # (torch.where would bring the number to the device first, and the training would wait for that.)
        return moved.div_(size).masked_fill_(size == 0, ABSENT)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in _WIDE else torch.float32


def _measured_part(weight: Tensor) -> Tensor | None:
    part = local_part(weight.detach())
    if part is None or part.layout is not torch.strided:
        return None
    step = math.ceil(part.numel() * _wide(part.dtype).itemsize / MOST_BYTES)
    if step <= 1:
        return part
    along = 0 if part.shape[0] >= step else part.shape.index(max(part.shape))
    return every(step, part, along)
