from __future__ import annotations

from gradwatch_server.store.cover import Plan, column_width, plan
from gradwatch_server.store.pyramid import FANOUT
from hypothesis import given
from hypothesis import strategies as st


def test_the_width_is_the_smallest_power_of_two_that_fits() -> None:
    assert column_width(0, 999, 1000) == 1
    assert column_width(0, 1000, 1000) == 2
    assert column_width(5, 5, 1) == 1
    assert column_width(63, 64, 1) == 128  # edges lie at multiples, so that two steps may need a wide column
    assert column_width(0, 2**53 - 1, 1000) == 2**44


def test_a_dirty_bucket_is_read_from_its_children_and_they_from_raw_steps() -> None:
    assert plan(0, 1023, 256, []) == Plan([(256, 0, 3)], [])
    found = plan(0, 1023, 256, [(256, 1)])
    assert found == Plan([(256, 0, 0), (256, 2, 3)], [(256, 511)])
    found = plan(0, 8191, 4096, [(1024, 5)])
    assert found == Plan([(4096, 0, 0), (1024, 4, 4), (256, 20, 23), (1024, 6, 7)], [])


def test_above_a_first_bucket_without_a_second_nothing_is_stored() -> None:
    assert plan(0, 4095, 4096, [], end=255) == Plan([(256, 0, 15)], [])
    assert plan(0, 4095, 4096, [], end=256) == Plan([(1024, 0, 3)], [])
    assert plan(0, 4095, 4096, [], end=1024) == Plan([(4096, 0, 0)], [])


def test_ends_that_cut_a_bucket_are_read_raw() -> None:
    assert plan(10, 700, 64, []) == Plan([(64, 1, 9)], [(10, 63), (640, 700)])
    assert plan(10, 20, 64, []) == Plan([], [(10, 20)])
    assert plan(10, 200, 32, []) == Plan([], [(10, 200)])
    assert plan(5, 4, 64, []) == Plan()


LEVEL = st.sampled_from([256, 1024])


@given(
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.sampled_from([1, 64, 128, 256, 4096]),
    st.lists(st.tuples(LEVEL, st.integers(0, 80))),
)
def test_every_step_is_covered_once_and_no_stale_bucket_is_used(
    first: int, length: int, width: int, dirty: list[tuple[int, int]]
) -> None:
    found = plan(first, first + length, width, dirty)
    steps = [step for low, high in found.raw for step in range(low, high + 1)]
    for level, low, high in found.buckets:
        assert level <= width
        steps += range(low * level, (high + 1) * level)
        for stale, bucket in dirty:
            if stale == 256 and level == 64:
                assert not set(range(4 * bucket, 4 * bucket + 4)) & set(range(low, high + 1))
            elif stale <= level:
                while stale < level:
                    stale, bucket = stale * FANOUT, bucket // FANOUT
                assert not low <= bucket <= high
    assert sorted(steps) == list(range(first, first + length + 1))
