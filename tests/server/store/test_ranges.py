from __future__ import annotations

from gradwatch_server.store.ranges import Ranges
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(0, 40)))
def test_it_is_a_set_that_says_how_far_it_goes_without_a_hole(numbers: list[int]) -> None:
    ranges = Ranges(numbers)
    members = set(numbers)
    through = next(n for n in range(-1, 50) if n + 1 not in members)
    assert ranges.through == through
    assert [n for n in range(50) if n in ranges] == sorted(members)
    beyond = [n for first, last in ranges.beyond() for n in range(first, last + 1)]
    assert beyond == sorted(n for n in members if n > through)


def test_upto() -> None:
    assert Ranges.upto(-1).through == -1
    assert Ranges.upto(5).through == 5 and 6 not in Ranges.upto(5)
