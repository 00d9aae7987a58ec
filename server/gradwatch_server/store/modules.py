"""Modules: layers that share all of their dotted name but its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decode import Floats, Mask


@dataclass(frozen=True, slots=True)
class Modules:
    """Names in order of first appearance, and for every layer the module it belongs to."""

    names: list[str]
    owner: NDArray[np.intp]

    def members(self) -> list[list[int]]:
        """For every module the indices of its layers."""
        found: list[list[int]] = [[] for _ in self.names]
        for layer, module in enumerate(self.owner.tolist()):
            found[module].append(layer)
        return found


def modules_of(layers: Sequence[str]) -> Modules:
    """The modules of layers by their dotted names; a name without a dot is a module of its own."""
    index: dict[str, int] = {}
    owner = [index.setdefault(name.rpartition(".")[0] or name, len(index)) for name in layers]
    return Modules(list(index), np.array(owner, np.intp))


def module_norms(values: NDArray[Any], present: Mask | None, modules: Modules, p: float) -> tuple[Floats, Mask | None]:
    """Per step the p-norm over each module's layers: from minima and maxima of layers it could not be had."""
    order = np.argsort(modules.owner, kind="stable")
    starts = np.flatnonzero(np.diff(modules.owner[order], prepend=-1))
    exact = np.abs(values[:, order].astype(np.float64))
    there = None
    if present is not None:
        ordered = present[:, order]
        exact = np.where(ordered, exact, 0.0)
        there = np.logical_or.reduceat(ordered, starts, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isinf(p):
            return np.maximum.reduceat(exact, starts, axis=1), there
        # Scaled by the largest, so that squares of big norms do not overflow.
        largest = np.maximum.reduceat(exact, starts, axis=1)
        scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
        shares = exact / scale[:, modules.owner[order]]
        return np.add.reduceat(shares**p, starts, axis=1) ** (1 / p) * scale, there
