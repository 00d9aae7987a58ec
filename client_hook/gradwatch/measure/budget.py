"""What measuring beside the norms may cost, and what it is expected to."""

from __future__ import annotations

from typing import Final

_LEAST_PER_UNIT: Final = 1e-13  # seconds: below what any clock tells, so that a price never becomes zero


class Budget:
    """A token bucket: it earns a share of whatever passes and pays for what is used.

    Nothing is begun without the tokens for its expected price. What turned out dearer makes a debt, which is earned
    back before anything else begins, so over any length of time the uses stay within ``share`` of what passed, but for
    the one that is under way and for ``capacity``, which is the most that is saved up over a pause. Something dearer
    than the capacity may begin when the bucket is full: it is rare, and never starved.
    """

    def __init__(self, share: float, capacity: float, in_hand: float = 0.0) -> None:
        self.share = share
        self.capacity = capacity
        self.in_hand = in_hand

    def earn(self, passed: float) -> float:
        """Tokens in hand after ``passed`` more seconds (or whatever is counted)."""
        self.in_hand = min(self.in_hand + self.share * passed, self.capacity)
        return self.in_hand

    def spend(self, used: float) -> None:
        self.in_hand -= used

    def affords(self, price: float) -> bool:
        return self.in_hand >= min(price, self.capacity)


class Price:
    """Seconds that a measurement takes for each unit of its size, learned from those made before.

    The last one counts half, those before it the other half: a first measurement that came upon cold caches is
    forgotten after a few.
    """

    def __init__(self, per_unit: float) -> None:
        self.per_unit = per_unit

    def of(self, units: float) -> float:
        """Expected seconds of a measurement of ``units``."""
        return self.per_unit * units

    def learn(self, units: float, seconds: float) -> None:
        """A measurement of ``units`` (> 0) took ``seconds``."""
        self.per_unit = max((self.per_unit + seconds / units) / 2, _LEAST_PER_UNIT)
