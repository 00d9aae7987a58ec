"""The plane in which a path of weights moves most: principal components of its sketches, through their mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PrincipalPlane:
    """Points of a path in its own plane, in lengths of weight space (as far as the sketch keeps lengths)."""

    x: Floats
    y: Floats
    off: Floats  # distance of each point off the plane
    explained: tuple[float, float] | None  # shares of variance along x and y; None where nothing moves


def fit(sketches: NDArray[np.floating]) -> PrincipalPlane:
    """The principal plane of points x width, all finite, in the order in which they were visited."""
    points = sketches.astype(np.float64)
    centred = points - points.mean(axis=0) if len(points) else points
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    axes = np.zeros((2, points.shape[1]))
    found = min(2, len(directions))
    axes[:found] = directions[:found] * (lengths[:found, None] > 0)
    x, y = (centred @ axis for axis in axes)
    x, y = x * _sign(_end_minus_beginning(x), x), y * _sign(_middle_minus_ends(y), y)
    off = np.linalg.norm(centred - np.outer(centred @ axes[0], axes[0]) - np.outer(centred @ axes[1], axes[1]), axis=1)
    variance = np.append(lengths**2, [0.0, 0.0])
    total = variance.sum()
    shares = (float(variance[0] / total), float(variance[1] / total)) if total > 0 else None
    return PrincipalPlane(x, y, off, shares)


def _end_minus_beginning(values: Floats) -> float:
    """What decides the sign of x, so that a path runs from left to right however often it is fitted anew."""
    return float(values[-1] - values[0]) if len(values) else 0.0


def _middle_minus_ends(values: Floats) -> float:
    """What decides the sign of y: the path bends upwards in its middle, as that of a random walk does most of all."""
    third = len(values) // 3
    if not third:
        return 0.0
    ends = np.concatenate([values[:third], values[-third:]])
    return float(values[third:-third].mean() - ends.mean())


def _sign(decisive: float, values: Floats) -> float:
    """1 or -1. Where what should decide is next to nothing, the first of the farthest points does."""
    farthest = float(np.abs(values).max(initial=0.0))
    if abs(decisive) <= 1e-9 * farthest:
        decisive = float(values[np.argmax(np.abs(values) >= farthest * (1 - 1e-9))]) if len(values) else 1.0
    return -1.0 if decisive < 0 else 1.0
