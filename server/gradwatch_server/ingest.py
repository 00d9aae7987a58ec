"""The socket that takes frames in: every frame is acked after its commit, or refused by name."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from gradwatch import frames
from gradwatch.frames import Frame, FrameError, Kind
from starlette.websockets import WebSocket, WebSocketDisconnect

from .commands import Commands
from .handshake import accept
from .hub import Hub
from .store import checks
from .store.registry import WriterState
from .store.store import Store

WATCHED_PACE: Final = 0.05  # seconds between two sends of the hook while somebody looks
QUIET_PACE: Final = 1.0
_MOST_REFUSALS: Final = 1_000  # that wait to be sent; a peer that does not take them is not listened to
_LOOK_AGAIN: Final = 0.05  # seconds
_BIG: Final = 128 << 10  # bytes from which on a message is checked beside the event loop


class Ingest:
    """All ingest sockets of one server."""

    def __init__(self, store: Store, hub: Hub, commands: Commands, reached: Callable[[str], None]) -> None:
        self._store, self._hub, self._commands, self._reached = store, hub, commands, reached
        self._sockets: set[_Socket] = set()
        hub.on_watch(self._watch_changed)

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one socket until it closes."""
        if not await accept(websocket):
            return
        socket = _Socket(websocket, self._store, self._hub, self._reached)
        self._sockets.add(socket)
        try:
            with self._commands.line(socket):
                await socket.run()
        finally:
            self._sockets.discard(socket)

    def _watch_changed(self, run: str) -> None:
        for socket in self._sockets:
            socket.ack_run(run)


class _Socket:
    """One connection: a reader that queues frames, and a sender that tells what became of them."""

    def __init__(self, websocket: WebSocket, store: Store, hub: Hub, reached: Callable[[str], None]) -> None:
        self._websocket, self._store, self._hub, self._reached = websocket, store, hub, reached
        self._writers: dict[str, WriterState] = {}
        self._to_ack: dict[str, None] = {}
        self._refusals: list[dict[str, Any]] = []
        self._orders: list[Mapping[str, Any]] = []
        self._wake = asyncio.Event()

    async def run(self) -> None:
        sender = asyncio.create_task(self._answer())
        try:
            while not sender.done():  # nobody would hear what becomes of further frames
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if message.get("bytes") is None:
                    self._refuse(None, None, FrameError("magic", "frames come as binary messages, not as text"))
                    continue
                await self._take(message["bytes"])
                await self._store.writer.room()
                while len(self._refusals) > _MOST_REFUSALS and not sender.done():
                    await asyncio.sleep(_LOOK_AGAIN)
        except WebSocketDisconnect:
            return
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await sender

    def ack_run(self, run: str) -> None:
        """The run's pace changed: tell its writers."""
        for key, writer in self._writers.items():
            if writer.run == run:
                self._to_ack[key] = None
                self._wake.set()

    def writers_of(self, run: str, attempt: int, rank: int) -> list[str]:
        """The writers still at work, of that place in a run, whose frames come over this socket."""
        place = (run, attempt, rank)
        known = [self._known(writer) for writer in self._writers.values()]
        return [w.key for w in known if (w.run, w.attempt, w.rank) == place and w.state in ("running", "lost")]

    def order(self, command: Mapping[str, Any]) -> None:
        """Send the command with the next answers."""
        self._orders.append(command)
        self._wake.set()

    async def _take(self, data: bytes) -> None:
        found, damaged = await asyncio.to_thread(_decode, data) if len(data) > _BIG else _decode(data)
        if found:
            self._reached("received")
        for frame, raw in found:
            self._queue(frame, raw)
        for error in damaged:
            self._refuse(None, None, error)

    def _queue(self, frame: Frame, raw: memoryview) -> None:
        key, seq = frame.header.get("writer"), frame.header.get("seq")
        try:
            if frame.kind not in checks.INCOMING:
                raise FrameError("kind", f"a {frame.kind.name.lower()} frame goes from the server to others")
            if frame.kind is Kind.HEARTBEAT:
                self._store.heartbeat(checks.writer_of(frame.header), time.time())
                return
            checks.writer_of(frame.header)
            checks.seq_of(frame.header)
        except FrameError as refusal:
            self._refuse(key, seq, refusal)
            return
        done = self._store.writer.submit(frame, raw)
        done.add_done_callback(lambda done: self._stored(key, seq, done))

    def _stored(self, key: Any, seq: Any, done: asyncio.Future[WriterState]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, FrameError):
            self._refuse(key, seq, error)
        elif error is None:
            self._writers[key] = done.result()
            self._to_ack[key] = None
            self._wake.set()

    def _refuse(self, key: Any, seq: Any, error: FrameError) -> None:
        writer = key if isinstance(key, str) and len(key) <= frames.MAX_NAME else None
        number = seq if isinstance(seq, int) and not isinstance(seq, bool) and 0 <= seq <= frames.MAX_COUNT else None
        refusal = {"writer": writer, "seq": number, "code": error.code, "message": str(error)[:500]}
        self._refusals.append(refusal)
        self._wake.set()

    async def _answer(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            refusals, self._refusals = self._refusals, []
            acks, self._to_ack = self._to_ack, {}
            orders, self._orders = self._orders, []
            answers = [frames.encode(Kind.REFUSE, refusal) for refusal in refusals]
            answers += [frames.encode(Kind.ACK, self._ack(self._writers[key])) for key in acks]
            answers += [frames.encode(Kind.CONTROL, order) for order in orders]
            for answer in answers:
                await self._websocket.send_bytes(answer)

    def _ack(self, writer: WriterState) -> dict[str, Any]:
        through, ranges = self._known(writer).acked
        watched = self._hub.watched(writer.run)
        pace = WATCHED_PACE if watched else QUIET_PACE
        return {"writer": writer.key, "through": through, "ranges": ranges[:1000], "watched": watched, "pace": pace}

    def _known(self, writer: WriterState) -> WriterState:
        # A failed batch makes the store forget its writers, so the one remembered here may be out of date.
        return self._store.registry.known(writer.key) or writer


def _decode(data: bytes) -> tuple[list[tuple[Frame, memoryview]], list[FrameError]]:
    """Whole frames with their bytes, and what is wrong with the others.

    A frame damaged inside is skipped by the length it states; where that cannot be trusted, the rest of the message
    is lost with it.
    """
    view = memoryview(data)
    found: list[tuple[Frame, memoryview]] = []
    damaged: list[FrameError] = []
    while len(view):
        try:
            size = frames.frame_size(view)
        except FrameError as error:
            damaged.append(error)
            break
        try:
            found.append((frames.decode(view), view[:size]))
        except FrameError as error:
            damaged.append(error)
        view = view[size:]
    return found, damaged
