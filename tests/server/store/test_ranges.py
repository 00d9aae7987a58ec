from __future__ import annotations

import numpy as np
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


def test_many_at_once_and_in_any_order() -> None:
    assert Ranges.of(np.zeros(0, np.int64)).through == -1
    some = Ranges.of(np.array([7, 0, 2, 1, 1, 9, 8]))
    assert (some.through, some.beyond()) == (2, [[7, 9]])
    assert Ranges.of(np.array([3, 4])).beyond() == [[3, 4]]
