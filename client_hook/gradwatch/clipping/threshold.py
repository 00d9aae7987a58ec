"""A threshold that is a number or follows a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradwatch.console import say

Scheduled = float | Callable[[int], float]
"""A number, or a function of the step that gives one."""


class Threshold:
    """The threshold of a strategy. Raises ValueError or TypeError, saying what to write, unless it is above 0.

    A schedule that fails, or gives something that is no threshold, in mid-training leaves the last good value in
    force; one console line says so. In a captured CUDA graph the value of the captured step stays in force.
    """

    def __init__(
        self, name: str, value: Scheduled, advice: str = "write clip=None to measure without clipping"
    ) -> None:
        self._name = name
        self._advice = advice
        self._told = False
        self._schedule: Callable[[int], float] | None = None
        if callable(value):
            self._schedule = value
            self.value = self._checked(value(0))
        else:
            self.value = self._checked(value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Threshold:
        twin = Threshold(self._name, self.value, self._advice)
        twin._schedule = self._schedule
        return twin

    def __reduce__(self) -> Any:
        # A schedule is often a lambda, which cannot be pickled: a pickled threshold is the number last in force.
        return Threshold, (self._name, self.value, self._advice)

    def at(self, step: int) -> float:
        """The threshold in force at ``step``."""
        if self._schedule is not None:
            try:
                self.value = self._checked(self._schedule(step))
            except Exception as error:
                if not self._told:
                    self._told = True
                    say(f"step {step}: the schedule of {self._name} failed ({error}); {self.value} stays in force")
        return self.value

    def set(self, value: float) -> None:
        """From now on this number, in place of a schedule, too."""
        self.value = self._checked(value)
        self._schedule = None

    def save(self) -> float | str | None:
        """For a checkpoint: a number, "inf", or None for a schedule, which the resuming script brings itself."""
        if self._schedule is not None:
            return None
        return "inf" if self.value == float("inf") else self.value

    def load(self, saved: float | str | None) -> None:
        """Take what ``save`` gave. After None a schedule goes on, and a number stays as it was given."""
        if saved is not None:
            self.set(float(saved))

    def describe(self) -> float | str:
        """As JSON: a number, "inf", or the schedule's name."""
        if self._schedule is not None:
            return f"schedule {getattr(self._schedule, '__qualname__', type(self._schedule).__name__)}"
        return "inf" if self.value == float("inf") else self.value

    def _checked(self, value: Any) -> float:
        if isinstance(value, bool):
            raise TypeError(f"{self._name} must be a number or a function of the step, not {value!r}")
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"{self._name} must be a number or a function of the step, not {value!r}") from None
        if not number > 0:
            raise ValueError(f"{self._name} must be above 0, not {value!r}: {self._advice}")
        return number
