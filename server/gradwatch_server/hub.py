"""Publish and subscribe. Per viewer there is one notice into which changes add up, so nobody waits for a viewer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .changes import RunChange

_MOST_EVENTS: Final = 256  # kept for a viewer that does not keep up; the newest stay
_MOST_RUNS: Final = 1_000


class Viewer:
    """What one viewer has yet to be told: bounded, because it only says what changed and not the values."""

    def __init__(self) -> None:
        self.run: str | None = None
        self.wake = asyncio.Event()
        self._changes: dict[str, RunChange] = {}

    def notify(self, change: RunChange) -> None:
        """Add a change to what waits; of other runs than the watched one only the state matters."""
        mine = RunChange(change.run, state=change.state, deleted=change.deleted, alerts=list(change.alerts))
        if change.run == self.run:
            mine.absorb(change)
            mine.alerts = list(change.alerts)
        waiting = self._changes.get(change.run)
        if waiting is None:
            if len(self._changes) >= _MOST_RUNS:
                self._changes.pop(next(iter(self._changes)))
            waiting = self._changes[change.run] = RunChange(change.run)
        waiting.absorb(mine)
        waiting.events = waiting.events[-_MOST_EVENTS:]
        waiting.alerts = list({alert["id"]: alert for alert in waiting.alerts}.values())[-_MOST_EVENTS:]
        self.wake.set()

    def take(self) -> dict[str, RunChange]:
        """What waits; from now on nothing does."""
        self.wake.clear()
        changes, self._changes = self._changes, {}
        return changes


class Hub:
    """The viewers of one server."""

    def __init__(self) -> None:
        self._viewers: set[Viewer] = set()
        self._watched: dict[str, int] = {}
        self._versions: dict[str, int] = {}
        self._listeners: list[Callable[[str], None]] = []

    @contextmanager
    def viewer(self) -> Iterator[Viewer]:
        """A viewer for as long as the block lasts."""
        viewer = Viewer()
        self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)
            self.watch(viewer, None)

    def watch(self, viewer: Viewer, run: str | None) -> None:
        """The viewer now looks at ``run`` (None: at no run's steps)."""
        before, viewer.run = viewer.run, run
        for changed, by in ((before, -1), (run, 1)):
            if changed is None or before == run:
                continue
            count = self._watched.get(changed, 0) + by
            self._watched[changed] = count
            if not count:
                del self._watched[changed]
            if (count, by) in ((0, -1), (1, 1)):
                for listener in self._listeners:
                    listener(changed)

    def watched(self, run: str) -> bool:
        """Whether somebody looks at ``run`` now."""
        return run in self._watched

    def version(self, run: str) -> int:
        """How often something of ``run`` was published: what is read now knows of all of it."""
        return self._versions.get(run, 0)

    def on_watch(self, listener: Callable[[str], None]) -> None:
        """Call ``listener(run)`` when a run gets its first or loses its last viewer."""
        self._listeners.append(listener)

    def publish(self, changes: dict[str, RunChange]) -> None:
        """Tell all viewers; never waits."""
        for change in changes.values():
            self._versions[change.run] = self.version(change.run) + 1
            for viewer in self._viewers:
                viewer.notify(change)
