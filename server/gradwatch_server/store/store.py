"""The store: frames in, columns out. Everything else of the server meets it through ``Store``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from ..changes import RunChange
from .engine import open_engines
from .migrations.upgrade import upgrade
from .probes import Probes
from .queries import Queries
from .reading import Books
from .registry import Registry
from .sealer import Sealer
from .writer import Writer


class Store:
    """One database with its writer, its readers and its sealer."""

    def __init__(self, url: str, reached: Callable[[str], None] = lambda boundary: None) -> None:
        self.engines = open_engines(url)
        self.registry = Registry()
        self.books = Books(self.engines.read)
        self.writer = Writer(self.engines.write, self.registry, self._committed, reached)
        self.queries = Queries(self.engines.read, self.books)
        self.probes = Probes(self.engines.read, self.queries.heavy)
        self.sealer = Sealer(self.engines.read, self.books, self.writer, reached)
        self.heard: dict[str, float] = {}  # when writers were last heard of, heartbeats included
        self._listeners: list[Callable[[dict[str, RunChange]], None]] = []
        self._sealing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Bring the schema up to date and begin to work."""
        await upgrade(self.engines.plain)
        self.writer.start()
        self._sealing = asyncio.create_task(self.sealer.run(), name="gradwatch sealer")

    async def close(self) -> None:
        """Finish what is pending and let go of the database."""
        if self._sealing:
            self._sealing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sealing
        await self.writer.close()
        await self.engines.dispose()

    def on_commit(self, listener: Callable[[dict[str, RunChange]], None]) -> None:
        """Call ``listener`` with what every commit changed."""
        self._listeners.append(listener)

    def heartbeat(self, writer: str, now: float) -> None:
        """The writer lives, though it has nothing to say."""
        self.heard[writer] = now

    def publish(self, changes: dict[str, RunChange]) -> None:
        """Tell of changes that did not come in frames."""
        for listener in self._listeners:
            listener(changes)

    def _committed(self, changes: dict[str, RunChange]) -> None:
        self.sealer.wake()
        self.publish(changes)
