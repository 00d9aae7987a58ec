from __future__ import annotations

from gradwatch_server.landscape.thinning import thinned
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 3000), st.integers(1, 400), st.integers(0, 500))
def test_few_enough_evenly_spread_and_the_newest_is_there(count: int, most: int, before: int) -> None:
    every, kept = thinned(count, most, before)
    assert len(kept) <= most and kept == sorted(set(kept)) and set(kept) <= set(range(count))
    assert not count or kept[-1] == count - 1
    if count <= most and most > 1:
        assert every == 1 and kept == list(range(count))
    if most > 1 and len(kept) > 2:
        assert {b - a for a, b in zip(kept[:-2], kept[1:-1], strict=True)} == {every}
        assert kept[-1] - kept[-2] <= every
        assert all((before + at) % every == 0 for at in kept[:-1])
        assert every == 1 or count / (every / 2) + 1 > most - 1, "no coarser than needed"


@given(st.integers(2, 2000), st.integers(2, 200), st.integers(0, 300), st.integers(0, 100))
def test_what_is_shown_stays_while_more_come_and_while_the_left_edge_moves(
    count: int, most: int, before: int, moved: int
) -> None:
    every, kept = thinned(count, most, before)
    grown_every, grown = thinned(count + 1, most, before)
    if grown_every == every:
        assert set(kept[:-1]) <= set(grown)
    moved_every, shifted = thinned(max(1, count - moved), most, before + min(moved, count - 1))
    if moved_every == every:
        offset = min(moved, count - 1)
        assert {at + offset for at in shifted[:-1]} <= set(kept)
