from __future__ import annotations

from gradwatch_server.store.reading import Stream
from gradwatch_server.store.views import make_view


def stream(number: int, attempt: int, rank: int, steps: tuple[int, int] | None) -> Stream:
    first, last = steps or (None, None)
    return Stream(number, "r", attempt, rank, 2.0, 0, first, last, 0, 0, 0, 0)


def seen(*streams: Stream, starts: dict[int, int], attempt: int | None = None, rank: int | None = None) -> list[object]:
    view = make_view("r", streams, starts, attempt, rank)
    return [(s.stream.id, s.first, s.last) for s in view.segments]


def test_a_chain_of_attempts_hides_what_was_done_again() -> None:
    streams = (stream(1, 1, 0, (0, 99)), stream(2, 2, 0, (50, 80)), stream(3, 3, 0, (70, 75)))
    starts = {1: 0, 2: 50, 3: 70}
    assert seen(*streams, starts=starts) == [(1, 0, 49), (2, 50, 69), (3, 70, 75)]
    assert seen(*streams, starts=starts, attempt=1) == [(1, 0, 99)]


def test_a_restart_from_the_beginning_hides_all_that_was_before_even_without_a_step() -> None:
    streams = (stream(1, 1, 0, (0, 99)), stream(2, 2, 0, None))
    assert seen(*streams, starts={1: 0, 2: 0}) == []
    assert seen(*streams, starts={1: 0, 2: 60}) == [(1, 0, 59)]


def test_an_attempt_that_began_earlier_hides_later_parts_of_all_before() -> None:
    streams = (stream(1, 1, 0, (0, 99)), stream(2, 2, 0, (50, 90)), stream(3, 3, 0, (20, 30)))
    assert seen(*streams, starts={1: 0, 2: 50, 3: 20}) == [(1, 0, 19), (3, 20, 30)]


def test_what_is_probed_may_lie_beyond_the_last_step_but_not_where_a_newer_attempt_hides_it() -> None:
    streams = (stream(1, 1, 0, (0, 99)), stream(2, 2, 0, (150, 180)))
    view = make_view("r", streams, {1: 0, 2: 150, 3: 170}, None, None)
    assert [(s.last, s.until) for s in view.segments] == [(99, 149), (169, 169)]
    alone = make_view("r", streams, {1: 0, 2: 150, 3: 170}, 2, None)
    assert [(s.last, s.until) for s in alone.segments] == [(180, 2**53 - 1)]


def test_the_lowest_rank_of_each_attempt_unless_one_is_named() -> None:
    streams = (stream(1, 1, 0, (0, 9)), stream(2, 1, 1, (0, 8)), stream(3, 2, 1, (10, 19)))
    starts = {1: 0, 2: 10}
    assert seen(*streams, starts=starts) == [(1, 0, 9), (3, 10, 19)]
    assert seen(*streams, starts=starts, rank=1) == [(2, 0, 8), (3, 10, 19)]
    assert seen(*streams, starts=starts, rank=0) == [(1, 0, 9)]
