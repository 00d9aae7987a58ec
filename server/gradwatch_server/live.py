"""The socket that shows runs live: a snapshot of what the viewer asks, then what changes, at most 10 times a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
from gradwatch import frames
from gradwatch.frames import FrameError, Kind
from starlette.websockets import WebSocket, WebSocketDisconnect

from .changes import RunChange
from .handshake import accept
from .hub import Hub, Viewer
from .shared import Shared
from .snapshots import encode_part, most_rows
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
_FEW: Final = 4_000  # cells up to which a frame is made at once; handing it to a thread would take longer


@dataclass(frozen=True, slots=True)
class _Look:
    """A run as one subscription sees it, at one moment."""

    view: View
    names: list[str]  # of its scalar series
    layers: int


class Live:
    """All live sockets of one server."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self._store, self._hub, self._shared = store, hub, Shared()

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one viewer until the socket closes."""
        if not await accept(websocket):
            return
        with self._hub.viewer() as viewer:
            session = _Session(websocket, self._store, self._hub, self._shared, viewer)
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

    def __init__(self, websocket: WebSocket, store: Store, hub: Hub, shared: Shared, viewer: Viewer) -> None:
        self._websocket, self._store, self._hub, self._shared, self._viewer = websocket, store, hub, shared, viewer
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
            # All viewers in step, so that those of one run ask for the same deltas.
            await asyncio.sleep(DELTA_SECONDS - time.monotonic() % DELTA_SECONDS)

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
            found = await self._run(run)
            if found is not None:
                await self._notice({"type": "run", "run": found})

    async def _run(self, run: str) -> dict[str, Any] | None:
        async def read() -> dict[str, Any] | None:
            async with self._store.engines.read.connect() as connection:
                return await runs.get_run(connection, run)

        return await self._shared.get(("run", run, self._hub.version(run)), read)

    async def _look(self, wanted: Subscription) -> _Look:
        assert wanted.run is not None
        run, queries = wanted.run, self._store.queries

        async def read() -> _Look:
            view = await queries.view(run, wanted.attempt, wanted.rank)
            return _Look(view, await queries.series_names(view), len(await queries.layers(run)))

        key = ("look", run, wanted.attempt, wanted.rank, self._hub.version(run))
        return await self._shared.get(key, read)

    async def _snapshot(self, wanted: Subscription) -> None:
        assert wanted.run is not None
        if await self._run(wanted.run) is None:
            await self._notice({"type": "error", "message": "there is no such run (yet)"})
            self._shown = None
            return
        self._late_runs[wanted.run] = None
        look = await self._look(wanted)
        count = look.layers if wanted.layers else 0
        first, last, width = wanted.range_of(look.view, count)
        self._shown = (look.view, count, width)
        await self._columns(Kind.SNAPSHOT, wanted, look, first, last, width)

    async def _update(self, wanted: Subscription, change: RunChange) -> None:
        assert wanted.run is not None
        if change.structure or self._shown is None:
            await self._snapshot(wanted)
            return
        if change.first is None or change.last is None:
            return
        look = await self._look(wanted)
        shown, count, width_shown = self._shown
        first, last, width = wanted.range_of(look.view, count)
        same = [s.stream.id for s in look.view.segments] == [s.stream.id for s in shown.segments]
        if not same or width != width_shown:
            await self._snapshot(wanted)
            return
        low, high = max(first, change.first), min(last, change.last)
        if low <= high:
            await self._columns(Kind.DELTA, wanted, look, low, high, width)

    async def _columns(self, kind: Kind, wanted: Subscription, look: _Look, first: int, last: int, width: int) -> None:
        """Send first..last in parts of one frame each; more and more of them are read at a time, as they are taken.

        A viewer that takes nothing costs the memory of a frame or two then, however many columns it asked for.
        """
        about: dict[str, Any] = {"request": wanted.request, "run": wanted.run, "last_step": look.view.last_step}
        about |= {"first": first, "last": last} if first <= last else {"first": None, "last": None}
        layers = look.layers if wanted.layers else 0
        span = most_rows(about, look.names, layers) * width
        first = first // width * width
        parts = max(1, -(-(last + 1 - first) // span))
        part, group = 0, 1
        while part < parts:
            low, group = first + part * span, min(group, parts - part)
            reduced = await self._reduced(wanted, look, low, min(last, low + group * span - 1), width)
            if len(reduced.layer_names) != layers:
                self._is_new = True  # layers came meanwhile; parts that differ would not add up
                self._viewer.wake.set()
                return
            encode = partial(_encode_group, kind, about, reduced, low, span, range(part, part + group), parts)
            made = encode() if len(reduced.first) * (layers + 1) < _FEW else await asyncio.to_thread(encode)
            del reduced, encode
            while made:
                await self._websocket.send_bytes(made.pop(0))
            part, group = part + group, group * 2

    async def _reduced(self, wanted: Subscription, look: _Look, first: int, last: int, width: int) -> Reduced:
        metric: Metric = "layer" if wanted.layers else "none"
        streams = tuple(segment.stream.id for segment in look.view.segments)
        key = ("reduced", wanted.run, streams, first, last, width, metric, self._hub.version(look.view.run))
        reduce = self._store.queries.reduce
        return await self._shared.get(key, lambda: reduce(look.view, first, last, width, metric, look.names))

    async def _notice(self, notice: dict[str, Any]) -> None:
        await self._websocket.send_bytes(frames.encode(Kind.NOTICE, notice))


def _encode_group(
    kind: Kind, about: dict[str, Any], reduced: Reduced, low: int, span: int, numbers: range, parts: int
) -> list[bytes]:
    """Parts ``numbers`` of ``parts``; ``low``: first step of the first, ``span``: steps of each."""
    edges = np.searchsorted(reduced.first, [low + span * at for at in range(len(numbers) + 1)]).tolist()
    edges[-1] = len(reduced.first)
    rows = [slice(start, end) for start, end in pairwise(edges)]
    return [encode_part(kind, about, reduced, some, number, parts) for some, number in zip(rows, numbers, strict=True)]
