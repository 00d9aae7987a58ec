"""The one task that writes: frames in group commits, and every other change in between."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from gradwatch.frames import Frame, FrameError
from sqlalchemy.exc import DataError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..changes import RunChange
from .engine import reason, trouble
from .intake import Batch
from .registry import Registry, WriterState

log = logging.getLogger("gradwatch.store")

_T = TypeVar("_T")
Job = Callable[[AsyncConnection], Awaitable[_T]]
Publish = Callable[[dict[str, RunChange]], None]

# Bytes in one commit. PostgreSQL's acks come late under big batches (91 ms at 1 MB, 8 ms at 96 kB).
_BATCH: Final = {"sqlite": 4 << 20, "postgresql": 256 << 10}
MOST_PENDING: Final = 64 << 20  # bytes on their way into the database; beyond it sockets are not read

# Seconds that frames wait here for a database that is away, as while it is started anew; then they are refused, and
# wait in the spools of their writers, where there is more room.
_PATIENCE: Final = 5.0
_PAUSE: Final = 0.25  # seconds between two tries
_LAST_WORDS: Final = 2.0  # seconds to write what is pending when the server ends


@dataclass(slots=True)
class _Pending:
    frame: Frame
    data: bytes | memoryview
    done: asyncio.Future[WriterState]


class Writer:
    """Takes frames and jobs in order of arrival; each frame's future resolves after the commit that holds it."""

    def __init__(
        self, engine: AsyncEngine, registry: Registry, publish: Publish, reached: Callable[[str], None]
    ) -> None:
        self._engine, self._registry, self._publish, self._reached = engine, registry, publish, reached
        self._frames: deque[_Pending] = deque()
        self._jobs: deque[tuple[Job[Any], asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._pending = 0
        self._closing = False
        self._failing_since: float | None = None  # monotonic seconds
        self.trouble: str | None = None  # why frames are not taken now: "full" or "busy"
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._loop(), name="gradwatch writer")

    async def close(self) -> None:
        """Write what is pending, then stop; what a database that does not answer has not taken is refused."""
        self._closing = True
        self._wake.set()
        if self._task:
            await asyncio.wait({self._task}, timeout=_LAST_WORDS)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_LAST_WORDS / 2)
        for _, done in self._jobs:
            done.cancel()
        self._refuse_all(FrameError("busy", "the server ends"))

    def submit(self, frame: Frame, data: bytes | memoryview) -> asyncio.Future[WriterState]:
        """Queue one frame. The future gives its writer, or FrameError when it is refused."""
        done: asyncio.Future[WriterState] = asyncio.get_running_loop().create_future()
        self._frames.append(_Pending(frame, data, done))
        self._pending += frame.size
        if self._pending > MOST_PENDING:
            self._room.clear()
        self._wake.set()
        return done

    async def room(self) -> None:
        """Wait until more frames may be queued."""
        await self._room.wait()

    async def run(self, job: Job[_T]) -> _T:
        """Run ``job`` in a transaction of its own; give its result after the commit."""
        if self._closing and (self._task is None or self._task.done()):
            raise RuntimeError("the store is closed")
        done: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, done))
        self._wake.set()
        return await done

    async def _loop(self) -> None:
        while True:
            while self._frames or self._jobs:
                if self._frames:
                    await self._write(self._take())
                if self._jobs:
                    await self._do(*self._jobs.popleft())
            if self._closing:
                return
            self._wake.clear()
            if not (self._frames or self._jobs or self._closing):
                await self._wake.wait()

    def _take(self) -> list[_Pending]:
        limit = _BATCH.get(self._engine.dialect.name, 256 << 10)
        taken: list[_Pending] = []
        size = 0
        while self._frames and (not taken or size + self._frames[0].frame.size <= limit):
            taken.append(self._frames.popleft())
            size += taken[-1].frame.size
        self._pending -= size
        if self._pending <= MOST_PENDING:
            self._room.set()
        return taken

    async def _write(self, pending: list[_Pending]) -> None:
        while True:
            try:
                await self._commit(pending)
            except Exception as error:
                # A commit whose answer was lost may have come true. That does no harm: what memory held of its writers
                # is forgotten, and the next try finds their frames in the database.
                if not await self._is_over(error, pending):
                    continue
            else:
                self.trouble = self._failing_since = None
            return

    async def _is_over(self, error: Exception, pending: list[_Pending]) -> bool:
        """After a failure: whether all has been said of the frames; else they are tried again."""
        kind = trouble(error)
        if kind is None and len(pending) > 1:
            # One frame must not take the others down with it.
            for one in pending:
                await self._write([one])
            return True
        if kind == "busy":
            self._failing_since = self._failing_since or time.monotonic()
            if time.monotonic() - self._failing_since < _PATIENCE and not self._closing:
                await asyncio.sleep(_PAUSE)
                return False
        if kind != self.trouble or kind is None:
            log.error("%d frames could not be stored: %s", len(pending), reason(error))
        self._refuse(pending, _refusal(error))
        if kind is not None:
            self.trouble = kind
            self._refuse_all(_refusal(error))
        return True

    def _refuse_all(self, refusal: FrameError) -> None:
        """Everything that is queued: it would fare no better."""
        queued, self._frames, self._pending = list(self._frames), deque(), 0
        self._room.set()
        self._refuse(queued, refusal)

    def _refuse(self, pending: list[_Pending], refusal: FrameError) -> None:
        for one in pending:
            if not one.done.done():
                one.done.set_exception(refusal)

    async def _commit(self, pending: list[_Pending]) -> None:
        batch: Batch | None = None
        results: list[tuple[_Pending, WriterState | FrameError]] = []
        try:
            async with self._engine.begin() as connection:
                batch = Batch(connection, self._registry, time.time())
                for one in pending:
                    try:
                        results.append((one, await batch.add(one.frame, one.data)))
                    except FrameError as refusal:
                        results.append((one, refusal))
                await batch.flush()
                self._reached("before_commit")
        except BaseException:
            if batch:
                batch.forget()
            raise
        self._reached("after_commit")
        batch.committed()
        for one, result in results:
            if one.done.done():
                continue
            if isinstance(result, FrameError):
                one.done.set_exception(result)
            else:
                one.done.set_result(result)
        self._publish(batch.changes)

    async def _do(self, job: Job[Any], done: asyncio.Future[Any]) -> None:
        try:
            async with self._engine.begin() as connection:
                result = await job(connection)
        except Exception as error:
            if not done.done():
                done.set_exception(error)
            return
        if not done.done():
            done.set_result(result)


def _refusal(error: Exception) -> FrameError:
    if isinstance(error, DataError):
        return FrameError("field", "the database cannot hold a value of this frame")
    kind = trouble(error)
    if kind is not None:
        return FrameError(kind, f"the server cannot store now: {reason(error)}")
    return FrameError("busy", "the server could not store this frame and will be asked again")
