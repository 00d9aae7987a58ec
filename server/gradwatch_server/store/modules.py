"""Modules: layers that share all of their dotted name but its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .decode import Floats, Mask

_FEW: Final = 16  # layers of a module, up to which they are added one after the other: many modules at a time


@dataclass(frozen=True, slots=True)
class Modules:
    """Names in order of first appearance, and for every layer the module it belongs to."""

    names: list[str]
    owner: NDArray[np.intp]

    def of_first(self, count: int) -> Modules:
        """The modules of the first ``count`` layers."""
        if count == len(self.owner):
            return self
        owner = self.owner[:count]
        return Modules(self.names[: int(owner.max(initial=-1)) + 1], owner)

    def over_members(self, ufunc: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        """Rows x layers to rows x modules."""
        found = np.empty((len(values), len(self.names)), values.dtype)
        for which, layers in self._alike():
            if layers.shape[1] > _FEW:
                wide = values[:, layers.reshape(-1)].reshape(len(values), *layers.shape)
                found[:, which] = ufunc.reduce(wide, axis=2)
                continue
            some = values[:, layers[:, 0]]
            for at in range(1, layers.shape[1]):
                some = ufunc(some, values[:, layers[:, at]])
            found[:, which] = some
        return found

    def _alike(self) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Modules with the same number of layers: their indices, and modules x layers."""
        order = np.argsort(self.owner, kind="stable")
        sizes = np.bincount(self.owner, minlength=len(self.names))
        ends = np.cumsum(sizes)
        found = []
        for size in np.unique(sizes).tolist():
            which = np.flatnonzero(sizes == size)
            found.append((which, order[(ends[which] - size)[:, None] + np.arange(size)]))
        return found

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
    exact = np.abs(values.astype(np.float64))
    if present is not None:
        exact = np.where(present, exact, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isinf(p):
            norms = modules.over_members(np.maximum, exact)
        elif p == 2 and values.dtype == np.float32:  # whose squares no float64 is too small for
            norms = np.sqrt(modules.over_members(np.add, np.square(exact)))
        else:
            # Scaled by the largest, so that powers of big norms do not overflow.
            largest = modules.over_members(np.maximum, exact)
            scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
            norms = modules.over_members(np.add, (exact / scale[:, modules.owner]) ** p) ** (1 / p) * scale
    return norms, None if present is None else modules.over_members(np.logical_or, present)
