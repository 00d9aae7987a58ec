"""The path of the weights as a map: snapshots of one sketch, in the path's own principal plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gradwatch.frames import MAX_COUNT
from numpy.typing import NDArray

from ..store.landscape_frames import TRAJECTORY, ProbeRows
from . import principal_plane
from .principal_plane import PrincipalPlane
from .surface import latest
from .thinning import thinned

_SAME = ("seed", "parameters", "k")  # sketches that differ in one of these cannot be compared


@dataclass(frozen=True, slots=True)
class Map:
    """The snapshots of a path. ``lost``: how many are left out, as their weights were not finite."""

    step: NDArray[np.int64]
    loss: NDArray[np.float64]
    plane: PrincipalPlane
    lost: int
    about: dict[str, Any]


def snapshots(
    pieces: Sequence[ProbeRows], until: Mapping[int, int], *, ends_only: bool
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """Rows by step of the frames comparable with the newest one, and what is said of it; None where there are none.

    ``until``: the last step that counts of each attempt. ``ends_only``: of every frame its last row alone.
    """
    mine = [piece for piece in pieces if piece.name == TRAJECTORY]
    if not mine:
        return None
    newest = mine[-1]
    alike = [piece for piece in mine if _kind(piece) == _kind(newest)]
    parts = []
    for piece in alike:
        taken = piece.columns["step"]
        inside = taken <= until.get(piece.attempt, MAX_COUNT)
        rows = np.flatnonzero(inside)[-1:] if ends_only else np.flatnonzero(inside)
        parts.append({name: values[rows] for name, values in piece.columns.items()})
    joined = latest({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    return (joined, dict(newest.about)) if len(joined["step"]) else None


def _kind(piece: ProbeRows) -> tuple[Any, ...]:
    return (*(piece.about.get(name) for name in _SAME), piece.columns["sketch"].shape[1])


def draw(rows: Mapping[str, NDArray[Any]], about: dict[str, Any], most: int) -> Map:
    """At most ``most`` snapshots in the principal plane of their path."""
    _, kept = thinned(len(rows["step"]), most)
    step, loss, sketch = (rows[name][kept] for name in ("step", "loss", "sketch"))
    finite = np.isfinite(sketch).all(axis=1)
    return Map(step[finite], loss[finite], principal_plane.fit(sketch[finite]), int((~finite).sum()), about)
