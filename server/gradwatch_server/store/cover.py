"""Which stored buckets, and which raw steps, make up a range: pure arithmetic on step numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .pyramid import FANOUT, LEVELS
from .tiles import BLOCK


@dataclass(slots=True)
class Plan:
    """``buckets``: (level, first bucket, last bucket), all clean; ``raw``: (first step, last step). Ends included."""

    buckets: list[tuple[int, int, int]] = field(default_factory=list)
    raw: list[tuple[int, int]] = field(default_factory=list)


def column_width(first: int, last: int, columns: int) -> int:
    """The smallest power of two that cuts first..last at absolute multiples into at most ``columns`` columns."""
    width = 1
    while last // width - first // width + 1 > columns:
        width *= 2
    return width


def plan(first: int, last: int, width: int, dirty: Iterable[tuple[int, int]], end: int = 2**53) -> Plan:
    """The cover of first..last by levels not above ``width``; ``dirty``: (level, bucket) that must not be used.

    ``end``: the writer's last step. Of a level whose first bucket would hold no more than one of the level below
    nothing is stored.
    """
    usable = [level for level in LEVELS if level <= width and (level <= BLOCK or level // FANOUT <= end)]
    stale = _spread(dirty, usable)
    found = Plan()
    _cover(found, usable, stale, first, last)
    found.raw = _joined(found.raw)
    return found


def _spread(dirty: Iterable[tuple[int, int]], levels: list[int]) -> Mapping[int, set[int]]:
    # A parent is only marked once its child has been redone, so until then the child's mark speaks for it. And the
    # mark of a block speaks for the buckets inside it, which are made with it.
    stale: dict[int, set[int]] = {level: set() for level in levels}
    for level, bucket in dirty:
        if level == BLOCK:
            for finer in (finer for finer in levels if finer < BLOCK):
                stale[finer].update(range(bucket * BLOCK // finer, (bucket + 1) * BLOCK // finer))
        while level in stale:
            stale[level].add(bucket)
            level, bucket = level * FANOUT, bucket // FANOUT
    return stale


def _cover(found: Plan, levels: list[int], stale: Mapping[int, set[int]], first: int, last: int) -> None:
    if first > last:
        return
    if not levels:
        found.raw.append((first, last))
        return
    *finer, level = levels
    low, high = -(-first // level), (last + 1) // level - 1
    if low > high:
        _cover(found, finer, stale, first, last)
        return
    _cover(found, finer, stale, first, low * level - 1)
    clean_from = low
    for bucket in sorted(b for b in stale[level] if low <= b <= high):
        if clean_from < bucket:
            found.buckets.append((level, clean_from, bucket - 1))
        _cover(found, finer, stale, bucket * level, (bucket + 1) * level - 1)
        clean_from = bucket + 1
    if clean_from <= high:
        found.buckets.append((level, clean_from, high))
    _cover(found, finer, stale, (high + 1) * level, last)


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and joined[-1][1] + 1 == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined
