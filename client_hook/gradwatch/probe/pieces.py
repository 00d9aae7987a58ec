"""Going through all weights at once as one long vector, in pieces that are cheap to widen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

_IN_CACHE: Final = 1 << 16  # elements; in float64 they fit into a core's cache
_ON_DEVICE: Final = 1 << 22  # enough to keep a GPU busy


def piece_size(device: torch.device) -> int:
    """Elements of a piece."""
    return _IN_CACHE if device.type == "cpu" else _ON_DEVICE


def widest(device: torch.device) -> torch.dtype:
    """In which sums are kept: float64, but for the one kind of device that has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def pieces(tensors: Sequence[Tensor], size: int) -> Iterator[Tensor]:
    """``tensors`` (of one device) laid end to end, ``size`` elements at a time and what is left at the end.

    Views where a piece lies within one tensor, in that tensor's dtype; joined in their common dtype elsewhere.
    """
    held: list[Tensor] = []
    count = 0
    for tensor in tensors:
        flat, start = tensor.detach().reshape(-1), 0
        while start < flat.numel():
            length = min(size - count, flat.numel() - start)
            held.append(flat.narrow(0, start, length))
            start, count = start + length, count + length
            if count == size:
                yield _joined(held)
                held, count = [], 0
    if held:
        yield _joined(held)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def by_device(tensors: Sequence[Tensor]) -> list[list[int]]:
    """The places of tensors that share a device."""
    places: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(tensors):
        places.setdefault(tensor.device, []).append(place)
    return list(places.values())
