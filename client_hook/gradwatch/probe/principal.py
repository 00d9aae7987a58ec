"""The plane in which a path of weights varies most, from the inner products of its points alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from gradwatch.probe.pieces import piece_size, pieces, widest

_ROUNDING: Final = 1e-13  # a squared distance off the plane below this share of the length's square is none
_STRAIGHT: Final = 1e-12  # a second eigenvalue below this share of the first is rounding


class Principal(NamedTuple):
    """Where a path lies in its principal plane."""

    weights: Tensor
    """How much of each difference to the anchor the two directions hold, shape (snapshots, 2), float64, on the host."""
    coordinates: Tensor
    """Float64 on the host, shape (snapshots, 3): along the first direction, the second, and how far off their plane
    through the anchor; in units of weight space."""


@torch.no_grad()
def gram(snapshots: Sequence[Sequence[Tensor]], anchor: Sequence[Tensor]) -> Tensor:
    """Inner products of the differences of ``snapshots`` to ``anchor``, shape (snapshots, snapshots), float64.

    The anchor's tensors are of one device, on which the result stays; the snapshots may be elsewhere. Summed up in one
    pass.
    """
    total = torch.zeros(len(snapshots), len(snapshots), dtype=widest(anchor[0].device), device=anchor[0].device)
    for rows in _differences(snapshots, anchor) if snapshots else ():
        total += rows @ rows.T
    return total


def principal(gram: Tensor) -> Principal | None:
    """The first two principal directions of a path, from the ``gram`` of its points and its last one, on the host.

    Of unit length and orthogonal; turned so that the first snapshot has no positive coordinate. The plane goes through
    the anchor, the principal directions are those of the path about its mean (Li et al. 2018, section 7). None: the
    path is empty or straight.
    """
    gram = gram.double()
    weights = _principal_weights(gram)
    if weights is None:
        return None
    along = gram @ weights
    flipped = torch.where(along[0] > 0, -1.0, 1.0)
    weights, along = weights * flipped, along * flipped
    squares = gram.diagonal() - along.square().sum(1)
    off = torch.where(squares > _ROUNDING * gram.diagonal(), squares, 0.0).sqrt()
    return Principal(weights, torch.cat([along, off.unsqueeze(1)], 1))


@torch.no_grad()
def spanned(
    found: Principal, snapshots: Sequence[Sequence[Tensor]], anchor: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """The two directions themselves, in the weights' dtypes."""
    weights = found.weights.to(anchor[0].device, non_blocking=True)
    dtype = anchor[0].dtype
    for tensor in anchor[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    sizes = [tensor.numel() for tensor in anchor]
    flat = torch.empty(2, sum(sizes), dtype=dtype, device=anchor[0].device)
    start = 0
    for rows in _differences(snapshots, anchor):
        flat.narrow(1, start, rows.shape[1]).copy_(weights.T.to(rows) @ rows)
        start += rows.shape[1]
    first, second = (
        [part.view(tensor.shape).to(tensor.dtype) for part, tensor in zip(torch.split(row, sizes), anchor, strict=True)]
        for row in flat.unbind()
    )
    return first, second


def _principal_weights(gram: Tensor) -> Tensor | None:
    """How much of each difference the two directions hold, shape (snapshots, 2); ``gram``: their inner products.

    The mean of the path drops out of them, since the eigenvectors of a centred matrix sum to zero.
    """
    count = len(gram) + 1  # with the anchor, whose difference to itself is zero
    if count < 3 or not torch.isfinite(gram).all():
        return None
    centred = torch.nn.functional.pad(gram, (0, 1, 0, 1))
    centred = centred - centred.mean(0, keepdim=True)
    centred = centred - centred.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(centred)
    first, second = values[-1], values[-2]
    if not second > _STRAIGHT * first:
        return None
    return torch.stack([vectors[:-1, -1] / first.sqrt(), vectors[:-1, -2] / second.sqrt()], 1)


def _differences(snapshots: Sequence[Sequence[Tensor]], anchor: Sequence[Tensor]) -> Iterator[Tensor]:
    """Pieces of all snapshots less the anchor, shape (snapshots, elements)."""
    device, wide = anchor[0].device, widest(anchor[0].device)
    size = max(piece_size(device) // max(len(snapshots), 1), 1 << 12)
    paths = [pieces(snapshot, size) for snapshot in snapshots]
    for here, *there in zip(pieces(anchor, size), *paths, strict=True):
        yield torch.stack([piece.to(device, wide) for piece in there]) - here.to(wide)
