"""How much of a path without any aim lies in its own principal plane: what a trajectory map must be compared with."""

from __future__ import annotations

import math


def explained(steps: int) -> tuple[float, float] | None:
    """The shares of variance along the first two principal components of a random walk of ``steps`` points.

    In a space of many dimensions the centred Gram matrix of such a walk has the eigenvalues of the inverse second
    difference with free ends, 1 / (4 sin^2(pi k / 2T)) for k = 1 ... T - 1, whose sum is (T^2 - 1) / 6. For long walks
    the shares tend to 6 / (pi k)^2: 60.8 % and 15.2 % (Antognini and Sohl-Dickstein, NeurIPS 2018).
    """
    if steps < 2:
        return None
    first, second = (1 / (4 * math.sin(math.pi * k / (2 * steps)) ** 2) for k in (1, 2))
    total = (steps * steps - 1) / 6
    return first / total, second / total if steps > 2 else 0.0
