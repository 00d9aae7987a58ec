"""The socket that shows runs live: a snapshot of what the viewer asks, then what changes, at most 10 times a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any, Final

from gradwatch import frames
from gradwatch.frames import FrameError, Kind
from starlette.websockets import WebSocket, WebSocketDisconnect

from .changes import RunChange
from .handshake import accept
from .hub import Hub, Viewer
from .snapshots import encode_columns
from .store import runs
from .store.columns import Metric
from .store.engine import tell
from .store.queries import Reduced
from .store.store import Store
from .store.views import View
from .subscription import Subscription

log = logging.getLogger("gradwatch.live")

DELTA_SECONDS: Final = 0.1  # between two deltas; the first goes out at once
RUN_SECONDS: Final = 0.5  # between two notices of one run
HEARTBEAT_SECONDS: Final = 5.0


class Live:
    """All live sockets of one server."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self._store, self._hub = store, hub

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one viewer until the socket closes."""
        if not await accept(websocket):
            return
        with self._hub.viewer() as viewer:
            session = _Session(websocket, self._store, self._hub, viewer)
            sender = asyncio.create_task(session.send())
            try:
                await session.receive()
            except WebSocketDisconnect:
                pass
            finally:
                sender.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await sender


class _Session:
    """One viewer's socket: what it asked for, and what it has been told."""

    def __init__(self, websocket: WebSocket, store: Store, hub: Hub, viewer: Viewer) -> None:
        self._websocket, self._store, self._hub, self._viewer = websocket, store, hub, viewer
        self._wanted: Subscription | None = None
        self._is_new = False
        self._shown: tuple[View, int, int] | None = None  # view, layers and width of the last snapshot
        self._late_runs: dict[str, None] = {}  # runs whose notice has to wait
        self._told: dict[str, float] = {}
        self._beat = time.monotonic()

    async def receive(self) -> None:
        """Take subscriptions until the socket closes."""
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                wanted = Subscription.parse(message.get("text"))
            except FrameError as error:
                await self._notice({"type": "error", "message": str(error)})
                continue
            self._wanted, self._is_new = wanted, True
            self._hub.watch(self._viewer, wanted.run)
            self._viewer.wake.set()

    async def send(self) -> None:
        """Send what is new until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._viewer.wake.wait(), RUN_SECONDS if self._late_runs else 1.0)
            try:
                await self._send_news()
            except WebSocketDisconnect:
                return
            except Exception as error:
                # The viewer connects again and begins with a snapshot; going on could leave it with a hole.
                tell(log, "a viewer could not be served", error)
                with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                    await self._websocket.close(1011, "the server failed; connect again")
                return
            await asyncio.sleep(DELTA_SECONDS)

    async def _send_news(self) -> None:
        # What waits is taken before anything is read, so that a change during the reading is sent next time.
        changes = self._viewer.take()
        wanted = self._wanted
        if wanted is not None and wanted.run is not None:
            change = changes.get(wanted.run)
            if self._is_new:
                self._is_new = False
                await self._snapshot(wanted)
            elif change is not None and not change.deleted:
                await self._update(wanted, change)
        for change in changes.values():
            await self._tell(change)
        await self._tell_runs()
        if time.monotonic() - self._beat >= HEARTBEAT_SECONDS:
            self._beat = time.monotonic()
            await self._notice({"type": "heartbeat", "time": time.time()})

    async def _tell(self, change: RunChange) -> None:
        mine = self._wanted is not None and self._wanted.run in (None, change.run)
        if change.deleted:
            await self._notice({"type": "deleted", "run": change.run})
        for event in change.events if mine else []:
            await self._notice({"type": "event", "event": runs.event_json(event)})
        for alert in change.alerts:
            await self._notice({"type": "alert", "alert": alert})
        if change.landscape and not change.deleted:
            await self._notice({"type": "landscape", "run": change.run, "landscape": True})
        if mine and change.state and not change.deleted:
            self._late_runs[change.run] = None

    async def _tell_runs(self) -> None:
        now = time.monotonic()
        due = [run for run in self._late_runs if now - self._told.get(run, 0) >= RUN_SECONDS]
        for run in due:
            del self._late_runs[run]
            self._told[run] = now
            async with self._store.engines.read.connect() as connection:
                found = await runs.get_run(connection, run)
            if found is not None:
                await self._notice({"type": "run", "run": found})

    async def _snapshot(self, wanted: Subscription) -> None:
        assert wanted.run is not None
        async with self._store.engines.read.connect() as connection:
            known = await runs.get_run(connection, wanted.run)
        if known is None:
            await self._notice({"type": "error", "message": "there is no such run (yet)"})
            self._shown = None
            return
        self._late_runs[wanted.run] = None
        view = await self._store.queries.view(wanted.run, wanted.attempt, wanted.rank)
        count = len(await self._store.queries.layers(wanted.run)) if wanted.layers else 0
        first, last, width = wanted.range_of(view, count)
        self._shown = (view, count, width)
        await self._columns(Kind.SNAPSHOT, wanted, view, first, last, width)

    async def _update(self, wanted: Subscription, change: RunChange) -> None:
        assert wanted.run is not None
        if change.structure or self._shown is None:
            await self._snapshot(wanted)
            return
        if change.first is None or change.last is None:
            return
        view = await self._store.queries.view(wanted.run, wanted.attempt, wanted.rank)
        shown, count, width_shown = self._shown
        first, last, width = wanted.range_of(view, count)
        same = [s.stream.id for s in view.segments] == [s.stream.id for s in shown.segments]
        if not same or width != width_shown:
            await self._snapshot(wanted)
            return
        low, high = max(first, change.first), min(last, change.last)
        if low <= high:
            await self._columns(Kind.DELTA, wanted, view, low, high, width)

    async def _columns(self, kind: Kind, wanted: Subscription, view: View, first: int, last: int, width: int) -> None:
        metric: Metric = "layer" if wanted.layers else "none"
        reduced: Reduced = await self._store.queries.reduce(view, first, last, width, metric)
        about: dict[str, Any] = {"request": wanted.request, "run": wanted.run, "last_step": view.last_step}
        about |= {"first": first, "last": last} if first <= last else {"first": None, "last": None}
        for frame in await asyncio.to_thread(lambda: list(encode_columns(kind, about, reduced))):
            await self._websocket.send_bytes(frame)

    async def _notice(self, notice: dict[str, Any]) -> None:
        await self._websocket.send_bytes(frames.encode(Kind.NOTICE, notice))
