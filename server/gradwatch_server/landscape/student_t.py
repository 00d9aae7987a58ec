"""Student's t distribution, as far as a two-sided test needs it."""

from __future__ import annotations

import math
from typing import Final

LEVEL: Final = 0.05  # differences that chance alone would make in fewer than 5 of 100 cases are taken for real

_TERMS: Final = 500  # of the continued fraction; some 20 are needed for degrees of freedom below a thousand
_EXACT: Final = 1e-15


def two_sided(t: float, freedom: int) -> float:
    """The chance of a value at least as far from 0 as ``t``, with ``freedom`` degrees of freedom."""
    if math.isinf(t):
        return 0.0
    square = t * t
    if square < freedom:  # from the side on which a small t is not lost beside 1
        return 1 - incomplete_beta(0.5, freedom / 2, square / (freedom + square))
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + square))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b); NIST Digital Library, 8.17.22."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    # The fraction converges fast on one side of the mean only; the other side is its mirror.
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction by Lentz's method."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            value *= c * d
        if abs(c * d - 1) < _EXACT:
            break
    return value
