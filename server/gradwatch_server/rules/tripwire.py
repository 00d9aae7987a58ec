"""A probe of the landscape that left its mark on the training: the hook compares before and after, and says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .findings import Finding

NAME: Final = "probe_tripwire"  # of the rule, and of the event that the hook sends

_LONGEST: Final = 2_000  # characters of what the hook says


@dataclass(frozen=True, slots=True)
class HookEvent:
    """An event frame, as far as rules look at it."""

    name: str
    step: int
    text: str


def judge(events: Sequence[HookEvent]) -> list[Finding]:
    """A finding for every event that says so. It needs no state: the hook looks after each probe by itself."""
    return [_finding(event) for event in events if event.name == NAME]


def _finding(event: HookEvent) -> Finding:
    title = f"A probe changed the training at step {event.step}"
    what = event.text[:_LONGEST].strip().rstrip(".") or "the hook does not say what moved"
    text = (
        f"Step {event.step}: {what}. Probing has been turned off; up to here the training may not be what it would be."
    )
    return Finding(NAME, "critical", title, text, event.step, event.step, 1, [])
