"""A set of sequence numbers that is almost always one run from 0."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class Ranges:
    """Whole numbers kept as closed ranges, so that a million of them take no more room than their holes."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for number in numbers:
            self.add(number)

    @classmethod
    def of(cls, numbers: NDArray[np.int64]) -> Ranges:
        """Numbers in any order, a number twice or not."""
        ordered = np.unique(numbers)
        ends = np.flatnonzero(np.append(np.diff(ordered) != 1, True)) if len(ordered) else np.zeros(0, np.intp)
        ranges = cls()
        ranges._ends = ordered[ends].tolist()
        ranges._starts = ordered[np.append(0, ends[:-1] + 1)].tolist() if len(ends) else []
        return ranges

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number <= self._ends[at]

    def add(self, number: int) -> None:
        """Take in one number."""
        at = bisect_right(self._starts, number) - 1
        if at >= 0 and number <= self._ends[at]:
            return
        joins_left = at >= 0 and self._ends[at] + 1 == number
        joins_right = at + 1 < len(self._starts) and self._starts[at + 1] == number + 1
        if joins_left and joins_right:
            self._ends[at] = self._ends.pop(at + 1)
            self._starts.pop(at + 1)
        elif joins_left:
            self._ends[at] = number
        elif joins_right:
            self._starts[at + 1] = number
        else:
            self._starts.insert(at + 1, number)
            self._ends.insert(at + 1, number)

    @property
    def through(self) -> int:
        """The last number of the unbroken run from 0, or -1."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else -1

    def beyond(self) -> list[list[int]]:
        """The ranges after ``through``."""
        skip = 1 if self.through >= 0 else 0
        return [[a, b] for a, b in zip(self._starts[skip:], self._ends[skip:], strict=True)]
