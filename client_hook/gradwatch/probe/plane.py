"""Planes through the weights on which the loss is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch
from torch import Tensor

from gradwatch.probe.directions import NOTHING_LEFT, filter_normalised, inner, norm, rejected
from gradwatch.probe.landscape_rows import LandscapeRows
from gradwatch.probe.pieces import widest
from gradwatch.probe.principal import Principal, spanned
from gradwatch.probe.snapshots import Snapshot

PlaneName = Literal["update", "trajectory", "random"]
PLANES: Final[tuple[PlaneName, ...]] = ("update", "random", "trajectory")
# Of the update plane, in lengths of the update: its start is at -1, the weights at 0; both are points of the grid.
_ALONG: Final = (-2.0, 6.0)
_ACROSS: Final = (-4.0, 4.0)
_RANDOM: Final = (-1.0, 1.0)  # of the random plane, in lengths of the filter-normalised directions (Li et al. 2018)
_BEYOND: Final = 0.25  # by how much of the path's extent the trajectory plane reaches beyond it


@dataclass(slots=True, eq=False)
class Plane:
    """``anchor`` + u ``first`` + v ``second``; the directions stand at right angles, but for random ones."""

    name: PlaneName
    anchor: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    low: tuple[float, float]
    high: tuple[float, float]
    units: Tensor
    """Lengths of the two directions, shape (2,), on the training's device."""
    about: dict[str, Any]
    path: list[tuple[int, float, float, float]] = field(default_factory=list)
    """Step, u, v and distance off the plane of weights that lie behind."""

    def at(self, place: tuple[int, int], size: int) -> tuple[float, float]:
        """u and v of a point of the grid."""
        u, v = (low + p * (high - low) / (size - 1) for p, low, high in zip(place, self.low, self.high, strict=True))
        return u, v

    def coordinates(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """What ``solve`` needs to know of where ``weights`` lie: 0-dimensional, on their device."""
        moved = [weight - start for weight, start in zip(weights, self.anchor, strict=True)]
        grams = [inner(self.first, self.first), inner(self.first, self.second), inner(self.second, self.second)]
        return [inner(moved, self.first), inner(moved, self.second), inner(moved, moved), *grams]

    def rows(self, probe: int, step: int, units: Sequence[float], about: Mapping[str, Any]) -> LandscapeRows:
        """The plane itself as a row."""
        (low_u, low_v), (high_u, high_v) = self.low, self.high
        names = ("low_u", "high_u", "low_v", "high_v", "unit_u", "unit_v", "base")
        numbers = (low_u, high_u, low_v, high_v, *units, math.nan)
        values = {name: [number] for name, number in zip(names, numbers, strict=True)}
        return LandscapeRows(probe, "surface", "plane", step, values, about)


def solve(a: float, b: float, square: float, uu: float, uv: float, vv: float) -> tuple[float, float, float]:
    """u, v and distance off the plane from the inner products that ``Plane.coordinates`` gives.

    Least squares in two directions that need not stand at right angles (normal equations).
    """
    determinant = uu * vv - uv * uv
    if determinant <= 1e-12 * uu * vv:
        return math.nan, math.nan, math.nan
    u, v = (a * vv - b * uv) / determinant, (b * uu - a * uv) / determinant
    return u, v, max(0.0, square - u * a - v * b) ** 0.5


def update_plane(old: list[Tensor], new: list[Tensor], gradient: list[Tensor], step: int) -> Plane:
    """Along the update that led from ``old`` to ``new`` (before ``step``), and up what of the gradient there stands at
    right angles to it, at the same length.

    ``old`` and ``gradient`` are used up. Where there is no update or no such part, ``units`` are not finite or zero.
    """
    torch._foreach_sub_(old, new)
    torch._foreach_neg_(old)
    (across, share), length = rejected(gradient, old), norm(old)
    there = torch.where(share > NOTHING_LEFT, 1.0, 0.0)
    torch._foreach_mul_(across, (there * length / norm(across)).to(across[0].dtype))
    path = [(step - 1, -1.0, 0.0, 0.0), (step, 0.0, 0.0, 0.0)]
    about = {"plane": "update", "normalisation": "none", "seed": 0}
    (low, high), (down, up) = _ALONG, _ACROSS
    return Plane("update", new, old, across, (low, down), (high, up), _pair(length, norm(across)), about, path)


def random_plane(anchor: list[Tensor], seed: int, step: int) -> Plane:
    """Along two random directions, filter-normalised."""
    first, second = filter_normalised(anchor, 2 * seed), filter_normalised(anchor, 2 * seed + 1)
    about = {"plane": "random", "normalisation": "filter", "seed": seed}
    (low, high), units = _RANDOM, _pair(norm(first), norm(second))
    return Plane("random", anchor, first, second, (low, low), (high, high), units, about, [(step, 0.0, 0.0, 0.0)])


def trajectory_plane(anchor: list[Tensor], path: Sequence[Snapshot], found: Principal, step: int) -> Plane:
    """The principal plane of ``path`` (steps and weights), through ``anchor``, where the weights are at ``step``."""
    steps = [*(kept.step for kept in path), step]
    places = [*found.coordinates.tolist(), (0.0, 0.0, 0.0)]
    us = _frame([place[0] for place in places])
    vs = _frame([place[1] for place in places], least=(us[1] - us[0]) / 4)
    first, second = spanned(found, [kept.weights for kept in path], anchor)
    about = {"plane": "trajectory", "normalisation": "none", "seed": 0}
    units = _pair(norm(first), norm(second))
    behind = [(at, *place) for at, place in zip(steps, places, strict=True)]
    return Plane("trajectory", anchor, first, second, (us[0], vs[0]), (us[1], vs[1]), units, about, behind)


def _frame(places: Sequence[float], least: float = 0.0) -> tuple[float, float]:
    """Lowest and highest coordinate of the picture: the path's, and some air; ``least``: how far apart at least."""
    low, high = min(places), max(places)
    air = max(_BEYOND * (high - low), (least - (high - low)) / 2)
    return low - air, high + air


def _pair(one: Tensor, other: Tensor) -> Tensor:
    return torch.stack([one, other.to(one.device)]).to(widest(one.device))
