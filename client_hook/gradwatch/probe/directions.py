"""Directions in weight space: lists of tensors, shaped like the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from gradwatch.probe.pieces import by_device, piece_size, pieces, widest

NOTHING_LEFT: Final = 1e-5  # a share of a direction below this one is rounding

_HALF: Final = (torch.float16, torch.bfloat16)
_STRAIGHT: Final = 1e-12  # of the variance, beside a straight path: rounding
_TINY: Final = 1e-10  # as in Li et al.'s code: a filter drawn as zeros stays zeros


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The inner product: 0-dimensional, float64, on the device of the first tensor.

    Products and sums are in float64, a piece at a time: about 1.1 ns an element on a CPU.
    """
    device = a[0].device
    total = torch.zeros((), dtype=widest(device), device=device)
    for places in by_device(a):
        there = a[places[0]].device
        wide, size = widest(there), piece_size(there)
        left = pieces([a[place] for place in places], size)
        right = pieces([b[place] for place in places], size)
        for x, y in zip(left, right, strict=True):
            total += torch.dot(x.to(wide), y.to(wide)).to(device)
    return total


def norm(a: Sequence[Tensor]) -> Tensor:
    """The Euclidean length: 0-dimensional, float64, on the device of the first tensor."""
    return inner(a, a).sqrt_()


@torch.no_grad()
def filter_normalised(weights: Sequence[Tensor], seed: int) -> list[Tensor]:
    """A random direction in which every filter is as long as that of the weights (Li et al. 2018, arXiv 1712.09913).

    Filters are the slices along dimension 0 of tensors with several dimensions. For other tensors (biases, the gains
    of normalisations) the direction is zero, as in their code with ``ignore="biasbn"``. So rescaling one layer and its
    successor, which leaves the function of a network as it is, leaves the picture as it is, too. The numbers come from
    generators of their own, one for each device, and are the same for the same seed, shapes and kind of device.
    """
    generators: dict[torch.device, torch.Generator] = {}
    direction = []
    for weight in weights:
        if weight.dim() <= 1:
            direction.append(torch.zeros_like(weight, requires_grad=False))
            continue
        device = weight.device
        if device not in generators:
            generators[device] = torch.Generator(device).manual_seed(seed + len(generators))
        dtype = torch.float32 if weight.dtype in _HALF else weight.dtype
        drawn = torch.randn(weight.shape, dtype=dtype, device=device, generator=generators[device])
        scale = _filter_norms(weight.detach().to(dtype)) / (_filter_norms(drawn) + _TINY)
        direction.append(drawn.mul_(scale).to(weight.dtype))
    return direction


def _filter_norms(tensor: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.dim())), keepdim=True)
    return norms


class Rejection(NamedTuple):
    """What of a direction is orthogonal to another."""

    rest: list[Tensor]
    """New tensors."""
    share: Tensor
    """Its length relative to the direction's: 0-dimensional, on the device. Below NOTHING_LEFT it is only rounding."""


@torch.no_grad()
def rejected(direction: Sequence[Tensor], other: Sequence[Tensor]) -> Rejection:
    """The part of ``direction`` orthogonal to ``other``; all of it where ``other`` is zero."""
    square = inner(other, other).clamp_(min=torch.finfo(torch.float32).tiny)
    rest = [tensor.detach().clone() for tensor in direction]
    # Twice, since the first time leaves the rounding of a long part.
    for _ in range(2):
        times = inner(other, rest) / square
        for tensor, change in zip(rest, other, strict=True):
            tensor.addcmul_(change.detach(), times.to(tensor.device, tensor.dtype), value=-1)
    return Rejection(rest, norm(rest) / norm(direction).clamp_(min=torch.finfo(torch.float32).tiny))
