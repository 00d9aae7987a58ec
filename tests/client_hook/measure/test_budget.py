"""The token bucket, over any order of earning and spending; and prices that are learned."""

from __future__ import annotations

import pytest
from gradwatch.measure.budget import Budget, Price
from hypothesis import given
from hypothesis import strategies as st

moments = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 0.2), st.floats(0, 3)), max_size=60)


@given(st.floats(0.001, 0.5), st.floats(0.01, 1), moments)
def test_what_is_spent_stays_within_the_share(
    share: float, capacity: float, moments: list[tuple[float, float, float]]
) -> None:
    budget = Budget(share, capacity)
    passed = spent = surprise = 0.0
    for seconds, price, factor in moments:
        passed += seconds
        budget.earn(seconds)
        if budget.affords(price):
            used = price * factor  # what a sample cost, beside what it was expected to
            budget.spend(used)
            spent, surprise = spent + used, max(used, surprise)
        assert spent <= share * passed + surprise + 1e-9
        assert budget.in_hand <= capacity


def test_a_debt_is_earned_back_first() -> None:
    budget = Budget(0.1, 1.0)
    budget.earn(5)
    budget.spend(2.0)
    budget.earn(14.9)
    assert not budget.affords(0.0)
    budget.earn(0.2)
    assert budget.affords(0.0) and not budget.affords(0.1)


def test_a_pause_is_saved_up_to_the_capacity_which_pays_for_anything() -> None:
    budget = Budget(0.1, 0.5)
    budget.earn(4)
    assert not budget.affords(7.0)
    assert budget.earn(3600) == 0.5
    assert budget.affords(7.0)


def test_prices_follow_what_was_paid() -> None:
    price = Price(1e-3)
    for _ in range(40):
        price.learn(200, 4e-4)
    assert price.of(1000) == pytest.approx(2e-3, rel=1e-6)
    price.learn(100, 0.0)
    assert price.of(1000) == pytest.approx(1e-3, rel=1e-6)
    for _ in range(200):
        price.learn(100, 0.0)
    assert price.per_unit > 0
