"""What of a tensor lies on this rank. Only rank 0 samples, so nothing here may need the other ranks."""

from __future__ import annotations

from torch import Tensor


def local_part(tensor: Tensor) -> Tensor | None:
    """This rank's part of a sharded tensor (DTensor), as a view; any other tensor as it is.

    None: the ranks hold parts of a sum that was not added up yet, so no value of it is known here.
    """
    placements = getattr(tensor, "placements", None)
    if placements is None:
        return tensor
    if any(placement.is_partial() for placement in placements):
        return None
    part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def every(step: int, tensor: Tensor, axis: int) -> Tensor:
    """``tensor[::step]`` along ``axis``, a view: the same for a device that is only pretended, where indexing fails."""
    return tensor.unfold(axis, 1, step).squeeze(-1)


def is_whole(tensor: Tensor) -> bool:
    """Whether all of ``tensor`` lies on this rank."""
    return all(placement.is_replicate() for placement in getattr(tensor, "placements", ()))
