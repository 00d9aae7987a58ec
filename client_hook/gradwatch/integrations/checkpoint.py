"""What a trainer's checkpoint keeps of a monitor."""

from __future__ import annotations

from typing import Any

from gradwatch.console import say
from gradwatch.monitor import Monitor


class Kept:
    """The state of ``monitor``, beside the clipping it was built with: a resumed training may have another.

    Build it before the first step, so that a threshold changed later counts as state.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._clip = monitor.strategy.describe()

    def save(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries, as far as the strategy's own state is."""
        return {"clip": self._clip, **self._monitor.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on at the saved step; by the saved threshold and statistics too, unless the clipping is another now."""
        if state.get("clip") != self._clip:
            say(f"the checkpoint was clipped by {state.get('clip')}, from here on it is {self._clip}")
            state = {**state, "strategy": self._monitor.strategy.state_dict()}
        self._monitor.load_state_dict(state)
