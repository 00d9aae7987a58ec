"""Against closed forms, printed tables, and the density added up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from gradwatch_server.landscape.student_t import incomplete_beta, two_sided
from hypothesis import given
from hypothesis import strategies as st

# Two-sided 5 % and 1 % points: NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
TABLE = {
    1: (12.706, 63.657),
    2: (4.303, 9.925),
    3: (3.182, 5.841),
    4: (2.776, 4.604),
    5: (2.571, 4.032),
    7: (2.365, 3.499),
    10: (2.228, 3.169),
    15: (2.131, 2.947),
    30: (2.042, 2.750),
    60: (2.000, 2.660),
    100: (1.984, 2.626),
}


@pytest.mark.parametrize("freedom", TABLE)
def test_the_printed_points(freedom: int) -> None:
    for point, level in zip(TABLE[freedom], (0.05, 0.01), strict=True):
        assert two_sided(point, freedom) == pytest.approx(level, rel=2e-3)
        assert two_sided(-point, freedom) == two_sided(point, freedom)


@given(st.floats(-1e3, 1e3))
def test_one_and_two_degrees_of_freedom_have_closed_forms(t: float) -> None:
    assert two_sided(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(abs(t)), abs=1e-12)
    assert two_sided(t, 2) == pytest.approx(1 - abs(t) / math.sqrt(2 + t * t), abs=1e-12)


@pytest.mark.parametrize("freedom", [3, 4, 9, 31, 200, 1999])
def test_it_is_the_area_under_the_density(freedom: int) -> None:
    places, weights = np.polynomial.legendre.leggauss(200)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    for t in (0.01, 0.5, 1.0, 1.96, 2.5, 4.0, 9.0):
        at = (places + 1) * t / 2
        inner = float((weights * scale * (1 + at**2 / freedom) ** (-(freedom + 1) / 2)).sum() * t / 2)
        assert two_sided(t, freedom) == pytest.approx(1 - 2 * inner, abs=1e-11)


@given(st.floats(-50, 50), st.integers(1, 500))
def test_it_is_scipys(t: float, freedom: int) -> None:
    assert two_sided(t, freedom) == pytest.approx(2 * scipy.stats.t.sf(abs(t), freedom), rel=1e-9, abs=1e-15)


def test_the_ends() -> None:
    assert two_sided(0.0, 5) == 1 and two_sided(math.inf, 5) == 0 and two_sided(1e200, 3) < 1e-100
    assert incomplete_beta(2, 3, 0) == 0 and incomplete_beta(2, 3, 1) == 1


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.001, 0.999))
def test_the_beta_function_of_whole_numbers_is_a_binomial_tail(a: int, b: int, x: float) -> None:
    n = a + b - 1
    tail = math.fsum(math.comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))
    assert incomplete_beta(a, b, x) == pytest.approx(tail, rel=1e-10, abs=1e-300)
