"""What a commit changed, as the rest of the server hears of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class RunChange:
    """The change of one run in one commit. Changes of several commits add up."""

    run: str
    first: int | None = None  # range of steps that are new or different
    last: int | None = None
    structure: bool = False  # layers, series or attempts: what was drawn must be drawn afresh
    state: bool = False  # the run's row
    landscape: bool = False  # probes of the loss landscape
    deleted: bool = False
    writers: set[str] = field(default_factory=set)  # keys of those whose frames came
    events: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)

    def steps(self, first: int, last: int) -> None:
        """Widen the range of changed steps."""
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)

    def absorb(self, other: RunChange) -> None:
        """Add another change of the same run."""
        if other.first is not None and other.last is not None:
            self.steps(other.first, other.last)
        self.structure |= other.structure
        self.state |= other.state
        self.landscape |= other.landscape
        self.deleted |= other.deleted
        self.events += other.events
        self.alerts += other.alerts
