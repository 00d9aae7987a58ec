"""A surface: the loss over a plane through the weights at one step, as far as it has been computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..store.landscape_frames import CELLS, MOST_SIZE, PATH, PLANE, ProbeRows

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Surface:
    """Losses by j (along v) and i (along u), as a picture has them."""

    attempt: int
    probe: int
    step: int
    about: dict[str, Any]
    u: Floats
    v: Floats
    loss: Floats  # size x size
    computed: NDArray[np.bool_]
    unit_u: float  # length in weight space of one unit of u
    unit_v: float
    base: float  # the loss at the anchor
    path: dict[str, NDArray[Any]]  # step, u, v, off, loss
    seconds: float

    @property
    def nonfinite(self) -> int:
        """How many of the computed losses are not finite."""
        return int((self.computed & ~np.isfinite(self.loss)).sum())


def assemble(pieces: Sequence[ProbeRows]) -> Surface | None:
    """The surface that the frames of one probe make; None where its plane has not come."""
    planes = [piece for piece in pieces if piece.name == PLANE]
    if not planes:
        return None
    plane = planes[-1]
    extent = {name: float(values[0]) for name, values in plane.columns.items()}
    size = int(plane.about["size"])
    loss, seconds = cells([piece for piece in pieces if piece.name == CELLS], size)
    computed = ~np.isnan(seconds)
    return Surface(
        *plane.key,
        plane.step,
        dict(plane.about),
        u=_axis(extent["low_u"], extent["high_u"], size),
        v=_axis(extent["low_v"], extent["high_v"], size),
        loss=loss,
        computed=computed,
        unit_u=extent["unit_u"],
        unit_v=extent["unit_v"],
        base=extent["base"],
        path=_path([piece for piece in pieces if piece.name == PATH]),
        seconds=math.fsum(seconds[computed].tolist()),
    )


def cells(pieces: Sequence[ProbeRows], size: int = MOST_SIZE) -> tuple[Floats, Floats]:
    """Losses and seconds, both j x i; the seconds are NaN where nothing was computed. The last word on a cell wins."""
    loss, seconds = np.full((size, size), np.nan), np.full((size, size), np.nan)
    rows = _joined(pieces, ("i", "j", "loss", "seconds"))
    i, j = rows["i"].astype(np.int64), rows["j"].astype(np.int64)
    inside = np.flatnonzero((i < size) & (j < size))[::-1]
    # The first of each cell from behind: numpy does not promise which of several assignments to one place stays.
    _, last = np.unique((j * size + i)[inside], return_index=True)
    chosen = inside[last]
    loss[j[chosen], i[chosen]] = rows["loss"][chosen]
    seconds[j[chosen], i[chosen]] = rows["seconds"][chosen]
    return loss, seconds


def _joined(pieces: Sequence[ProbeRows], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([piece.columns[name] for piece in pieces] or [np.zeros(0)]) for name in names}


def _axis(low: float, high: float, size: int) -> Floats:
    return low + np.arange(size, dtype=np.float64) * ((high - low) / (size - 1))


def _path(pieces: Sequence[ProbeRows]) -> dict[str, NDArray[Any]]:
    return latest(_joined(pieces, ("step", "u", "v", "off", "loss")))


def latest(columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Rows by step; of a step given twice only the last word stays."""
    order = np.argsort(columns["step"], kind="stable")
    steps = columns["step"][order]
    kept = order[np.append(steps[1:] != steps[:-1], True)] if len(order) else order
    return {name: values[kept] for name, values in columns.items()}
