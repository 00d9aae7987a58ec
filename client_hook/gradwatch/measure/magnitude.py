"""How large the single elements of a gradient are: log2 histograms, counted by their exponent bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from gradwatch.measure.local_part import every, local_part

LOWEST: Final = -48  # the first bin begins at 2**-48
BINS: Final = 64  # a power of two each; the last one ends at 2**16
WIDTH: Final = 2 + 1 + BINS + 1
MOST_ELEMENTS: Final = 1 << 16  # counted of one gradient

_BIAS: Final = 127  # of float32
_WIDE_BIAS: Final = 1023  # of float64
_NONFINITE: Final = 255  # the biased exponent of infinities and NaN, the largest
_FIRST: Final = LOWEST + _BIAS


def elements(gradient: Tensor) -> int:
    """How many elements ``magnitudes`` counts of ``gradient``; 0: it cannot take it.

    It takes no gradient whose ranks hold parts of a sum, and none that is sparse with several values for one row on
    another device than the CPU, for adding them up would wait for that device.
    """
    part = local_part(gradient)
    if part is None:
        return 0
    if part.is_sparse:
        summed = part.is_coalesced() or part.device.type == "cpu"
        return min(part._values().numel(), MOST_ELEMENTS) if summed else 0
    return min(part.numel(), MOST_ELEMENTS) if part.layout is torch.strided else 0


def magnitudes(gradients: Sequence[Tensor]) -> Tensor:
    """Histograms of \\|g\\|, shape (gradients, WIDTH), int64: zeros, non-finite ones, then counts from small to large.

    The counts: below 2**LOWEST (zeros apart), BINS bins of a power of two each, at or above the last one's end. A row
    adds up to the elements counted: of each gradient every k-th, MOST_ELEMENTS at most; of a sparse one those that are
    stored, of a sharded one (DTensor) those of this rank, of a complex one the absolute values. The gradients (of one
    device, none empty) are only read.
    """
    chosen = [subsample(gradient) for gradient in gradients]
    # Elsewhere bincount would wait for the device, to learn the largest exponent.
    count = count_on_host if chosen[0].device.type == "cpu" else count_on_device
    counts = torch.stack([count(exponents(values)) for values in chosen])
    zeros = torch.stack([len(values) - torch.count_nonzero(values) for values in chosen]).unsqueeze(1)
    below, bins, above, nonfinite = torch.split(counts, [_FIRST, BINS, _NONFINITE - _FIRST - BINS, 1], 1)
    ends = (below.sum(1, keepdim=True) - zeros, above.sum(1, keepdim=True))
    return torch.cat([zeros, nonfinite, ends[0], bins, ends[1]], 1)


def subsample(gradient: Tensor) -> Tensor:
    """Every k-th element as a real vector, MOST_ELEMENTS at most.

    k has no factor in common with the size of a row, so that all columns get their turn.
    """
    part = local_part(gradient)
    assert part is not None
    if part.is_sparse:
        part = part.coalesce().values()
    part = part.squeeze()
    # In the order in which they lie in memory, so that no layout (channels last, transposed) has to be copied first.
    strides = part.stride()
    laid_out = part.permute(sorted(range(part.dim()), key=lambda axis: -strides[axis]))
    step = math.ceil(part.numel() / MOST_ELEMENTS)
    row = part.numel() // laid_out.shape[0] if part.dim() else 1
    while step > 1 and math.gcd(step, row) != 1:
        step += 1
    chosen = every(step, laid_out.reshape(-1), 0)
    return chosen.abs() if chosen.is_complex() else chosen


def exponents(values: Tensor) -> Tensor:
    """The biased float32 exponent of each of real ``values``: 0 below 2**-126, 255 if not finite."""
    if values.dtype is not torch.float64:
        return (values.float().view(torch.int32) >> 23) & 0xFF
    wide = (values.view(torch.int64) >> 52) & 0x7FF
    return (wide - (_WIDE_BIAS - _BIAS)).clamp_(0, _NONFINITE - 1).masked_fill_(wide == 0x7FF, _NONFINITE)


def count_on_host(codes: Tensor) -> Tensor:
    """How often each exponent occurs: shape (256,), int64."""
    return torch.bincount(codes, minlength=_NONFINITE + 1)


def count_on_device(codes: Tensor) -> Tensor:
    """The same without waiting for the device, and the same in every run: whole numbers have no order of adding up."""
    counts = torch.zeros(_NONFINITE + 1, dtype=torch.int64, device=codes.device)
    return counts.scatter_add_(0, codes.long(), counts.new_ones(1).expand(len(codes)))
