"""Which points of a line through the weights are evaluated, and what follows from their losses.

The line is ``loss(before + alpha * (after - before))``: alpha 0 is where the weights were before a step, 1 where it
took them. Nothing here evaluates a loss: points are asked for one at a time, whenever there is time for one.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

GRID: Final = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
FARTHEST: Final = 64.0  # how far the critical step is looked for
NEAREST: Final = 2.0**-6
PRECISION: Final = 1 / 16  # of the critical step, relative

# The ends and the middle first, so that a line cut short still shows its shape.
_ORDER: Final = (0.0, 1.0, 2.0, 4.0, 0.5, -0.5, 1.5, 3.0, 0.25, 0.75, 1.25, -0.25, 2.5)


class LineSummary(NamedTuple):
    """Numbers of a line; NaN: not measured."""

    base: float
    """Loss at alpha 0."""
    taken: float
    """Loss at alpha 1."""
    best_alpha: float
    """Where the loss is least."""
    critical_low: float
    """The least alpha > 0 at which the loss is above ``base`` lies above this one. 0: it is above at once."""
    critical_high: float
    """... and not above this one. Infinity: up to ``critical_low`` it never is."""


class Line:
    """Asks for the points of GRID, then for those that bracket the critical step to PRECISION.

    The critical step is the least alpha > 0 with a loss above that at 0 (Kalra et al. 2026, arXiv 2601.16979, their
    eta_c is alpha times the learning rate), as far as the points tell: a hump between two of them stays unseen. It is
    looked for by doubling alpha beyond the grid, up to FARTHEST, or by halving it, down to NEAREST, then by bisection.
    A loss that is not finite counts as above; where the one at 0 is not, nothing more is asked for.
    """

    def __init__(self) -> None:
        self.points: dict[float, float] = {}

    def add(self, alpha: float, loss: float) -> None:
        self.points[alpha] = loss

    def next(self) -> float | None:
        """The alpha to evaluate next, the same until it was added; None: the line is done."""
        if not math.isfinite(self.points.get(0.0, 0.0)):
            return None
        for alpha in _ORDER:
            if alpha not in self.points:
                return alpha
        return None if self.flat else self._refinement()

    @property
    def flat(self) -> bool:
        """Whether all losses, of two points at least, are the same to the last bit.

        So it is for a loss that does not depend on the weights that it is given, and for an update of zero.
        """
        return len(self.points) > 1 and len(set(self.points.values())) == 1

    def summary(self) -> LineSummary:
        """What is known by now; the critical step only once the line is done."""
        low, high = self._bracket() if self.next() is None else (math.nan, math.nan)
        nothing = math.nan
        return LineSummary(self.points.get(0.0, nothing), self.points.get(1.0, nothing), self._best(), low, high)

    def _bracket(self) -> tuple[float, float]:
        base = self.points.get(0.0, math.nan)
        if not math.isfinite(base):
            return math.nan, math.nan
        low = 0.0
        for alpha in sorted(alpha for alpha in self.points if alpha > 0):
            if not self.points[alpha] <= base or self.points[alpha] == -math.inf:
                return low, alpha
            low = alpha
        return low, math.inf

    def _refinement(self) -> float | None:
        low, high = self._bracket()
        if high == math.inf:
            return 2 * low if low < FARTHEST else None
        if low == 0:
            return high / 2 if high > NEAREST else None
        return (low + high) / 2 if 1 - low / high >= PRECISION else None

    def _best(self) -> float:
        """The least point, moved to the vertex of the parabola through it and the two beside it."""
        alphas = sorted(alpha for alpha, loss in self.points.items() if math.isfinite(loss))
        if not alphas:
            return math.nan
        best = min(alphas, key=lambda alpha: (self.points[alpha], abs(alpha)))
        place = sorted(self.points).index(best)
        beside = sorted(self.points)[max(place - 1, 0) : place + 2]
        if len(beside) < 3 or beside[1] != best or not all(math.isfinite(self.points[alpha]) for alpha in beside):
            return best
        left, _, right = beside
        rises = [(self.points[alpha] - self.points[best]) / (alpha - best) for alpha in (left, right)]
        curvature = (rises[1] - rises[0]) / (right - left)
        if not 0 < curvature < math.inf:
            return best
        slope = rises[0] + curvature * (best - left)
        return min(max(best - slope / (2 * curvature), left), right)
