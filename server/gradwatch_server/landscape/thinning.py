"""Which of many things are shown where there is room for few."""

from __future__ import annotations


def thinned(count: int, most: int, before: int = 0) -> tuple[int, list[int]]:
    """Every how manyeth of ``count`` things is shown, and which: at most ``most`` of them, the last one always.

    The distance is a power of two, and ``before`` things stand in front of these, so that the choice stays the same
    while more come and while the part looked at moves.
    """
    if most < 2:
        return max(1, count), [count - 1] if count else []
    every = 1
    while len(kept := _multiples(count, every, before)) > most:
        every *= 2
    return every, kept


def _multiples(count: int, every: int, before: int) -> list[int]:
    kept = list(range(-before % every, count, every))
    return kept if not count or kept[-1:] == [count - 1] else [*kept, count - 1]
