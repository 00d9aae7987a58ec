"""In which order the cells of a surface are evaluated: coarse to fine, each level reusing the one before."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

COARSEST: Final = 5  # points a side

Cell = tuple[int, int]


class Grid:
    """Asks for the cells of a square of ``size`` points a side, first 5 a side, then twice as fine, up to ``levels``.

    ``levels`` is the points a side of the finest level wanted, ``size`` those of the finest that there could be: cells
    are counted in its points, so a coarser level has the multiples of 8, 4 or 2 (for 33). The first level goes from
    the centre outwards; a later one begins where the loss changes most between cells that are known already, by its
    logarithm, and where it stops being finite. Each level is put in order once, when it begins.
    """

    def __init__(self, levels: int, size: int = 33) -> None:
        if levels not in _levels(size):
            raise ValueError(f"levels has to be one of {', '.join(map(str, _levels(size)))}")
        self.size = size
        self.losses: dict[Cell, float] = {}
        self._stride = (size - 1) // (COARSEST - 1)
        self._finest = (size - 1) // (levels - 1)
        self.total = levels**2
        self._waiting = deque(self._from_the_centre(self._cells(self._stride)))

    @property
    def computed(self) -> int:
        """How many of the ``total`` cells have a loss."""
        return len(self.losses)

    def add(self, i: int, j: int, loss: float) -> None:
        self.losses[i, j] = loss

    def next(self) -> Cell | None:
        """The cell to evaluate next, the same until it was added; None: all of them were."""
        while True:
            while self._waiting and self._waiting[0] in self.losses:
                self._waiting.popleft()
            if self._waiting:
                return self._waiting[0]
            if self._stride == self._finest:
                return None
            self._stride //= 2
            self._waiting.extend(self._from_the_steepest(self._stride))

    def _cells(self, stride: int) -> list[Cell]:
        ticks = range(0, self.size, stride)
        return [(i, j) for i in ticks for j in ticks]

    def _from_the_centre(self, cells: list[Cell]) -> list[Cell]:
        middle = self.size // 2
        return sorted(cells, key=lambda cell: ((cell[0] - middle) ** 2 + (cell[1] - middle) ** 2, cell))

    def _from_the_steepest(self, stride: int) -> list[Cell]:
        heights = _heights(self.losses)
        change = {}
        for cell in self._from_the_centre(self._cells(stride)):
            if cell not in self.losses:
                change[cell] = _change([heights[near] for near in _neighbours(cell, stride) if near in heights])
        # (A sort keeps the order of equals: from the centre.)
        return sorted(change, key=change.__getitem__, reverse=True)


def _levels(size: int) -> list[int]:
    stride, levels = (size - 1) // (COARSEST - 1), list[int]()
    while stride and (size - 1) % stride == 0:
        levels.append((size - 1) // stride + 1)
        stride = stride // 2 if stride % 2 == 0 else 0
    return levels


def _neighbours(cell: Cell, stride: int) -> list[Cell]:
    """Those of the level before: two beside or four around."""
    steps = [(-stride, stride) if place % (2 * stride) else (0,) for place in cell]
    return [(cell[0] + across, cell[1] + along) for across in steps[0] for along in steps[1]]


def _heights(losses: dict[Cell, float]) -> dict[Cell, float]:
    """Logarithms of the losses; where some are not positive, of those above the least. NaN where one is not finite."""
    finite = [loss for loss in losses.values() if math.isfinite(loss)]
    low, high = min(finite, default=1.0), max(finite, default=1.0)
    half_span = high / 2 - low / 2  # (halved, since the whole may overflow)

    def height(loss: float) -> float:
        if not math.isfinite(loss):
            return math.nan
        if low > 0:
            return math.log(loss)
        return math.log1p(100 * ((loss / 2 - low / 2) / half_span)) if half_span else 0.0

    return {cell: height(loss) for cell, loss in losses.items()}


def _change(heights: list[float]) -> float:
    """How much the heights around a cell differ: infinite where only some are finite, below all else where none is."""
    finite = [height for height in heights if math.isfinite(height)]
    if not finite:
        return -1.0
    return max(finite) - min(finite) if len(finite) == len(heights) else math.inf
