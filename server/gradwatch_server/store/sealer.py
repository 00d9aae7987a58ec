"""The task behind the hot log: it seals blocks, raises the pyramid over them, and packs what is whole."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from . import packing, sealing, tables
from .engine import tell
from .marks import Mark, Task, next_marks
from .pyramid import FANOUT, GROUP
from .reading import PIECE_BYTES, Books, Stream
from .tiles import BLOCK
from .writer import Writer

log = logging.getLogger("gradwatch.store")

_PAUSE: Final = 0.25  # seconds between two looks, so that a busy hour costs few transactions
_AFTER_FAILURE: Final = 2.0
_BLOCKS_IN_TURN: Final = 16  # of one writer, before others have their turn
_PYRAMID_CELL: Final = 72  # bytes of a bucket of one series in memory, moments and all


class Sealer:
    """One task; the marks in ``dirty`` are its durable cursor. Each piece of work is one transaction of the writer's.

    ``reached`` hears "before_seal" and "after_seal", so that a test can stop the process exactly there.
    """

    def __init__(self, engine: AsyncEngine, books: Books, writer: Writer, reached: Callable[[str], None]) -> None:
        self._engine, self._books, self._writer, self._reached = engine, books, writer, reached
        self._wake = asyncio.Event()
        self._wake.set()  # marks may be left from before
        self._turn = 0
        self._passed_over: set[int] = set()  # writers whose newest frames the rules have not seen yet
        # Two at once could clear a mark that was set anew between the look of one and the work of the other.
        self.alone = asyncio.Lock()
        self.waits_for_rules = False  # frames are kept until the rules have judged them

    def wake(self) -> None:
        """Something was committed."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._passed_over.clear()
            try:
                while await self.once():
                    pass
            except Exception as error:
                tell(log, "sealing failed and will be tried again", error)
                self._wake.set()
                await asyncio.sleep(_AFTER_FAILURE)
            await asyncio.sleep(_PAUSE)

    async def drain(self) -> None:
        """Do everything that is marked, what may still grow too."""
        self._passed_over.clear()
        while await self.once(unfinished=True):
            pass

    async def once(self, *, unfinished: bool = False) -> bool:
        """Do some of the work of one writer; False when there was none.

        Blocks that the writer is still filling are left to the queries, which read their few steps as they came.
        """
        async with self.alone:
            for turn in range(len(Task)):
                task = Task((self._turn + turn) % len(Task))
                async with self._engine.connect() as connection:
                    found = await next_marks(connection, task, self._passed_over, unfinished=unfinished)
                if found:
                    self._turn = task.value + 1
                    await self._do(task, *found)
                    return True
            return False

    async def _do(self, task: Task, stream: Stream, marks: list[Mark]) -> None:
        if task is Task.SEAL:
            await self._seal(stream, marks)
        elif task is Task.MERGE:
            some = await self._bounded(stream, marks, FANOUT * _PYRAMID_CELL)
            rows = await packing.merge(self._engine, stream, some)
            await self._write(lambda connection: packing.keep_merged(connection, stream, some, rows))
        else:
            some = await self._bounded(stream, marks, GROUP * _PYRAMID_CELL)
            packed = await packing.pack(self._engine, stream, some)
            await self._write(lambda connection: packing.keep_packed(connection, stream, some, packed))

    async def _bounded(self, stream: Stream, marks: Sequence[Mark], bytes_of_layer: int) -> list[Mark]:
        """As many marks as fit into memory and a short transaction."""
        layers = len((await self._books.of(stream)).layers)
        return list(marks[: max(1, PIECE_BYTES // (bytes_of_layer * (layers + 50)))])

    async def _seal(self, stream: Stream, marks: list[Mark]) -> None:
        """Some blocks at a time, encoded while those before them are written."""
        writing: asyncio.Task[None] | None = None
        try:
            left = marks[:_BLOCKS_IN_TURN]
            while left:
                some = await self._bounded(stream, left, BLOCK * 4)
                left = left[len(some) :]
                work = await sealing.prepare(self._engine, self._books, stream, some)
                if writing:
                    await writing
                if not await self._judged(stream, work):
                    self._passed_over.add(stream.id)
                    return
                keep = functools.partial(sealing.keep, stream=stream, marks=some, work=work)
                writing = asyncio.create_task(self._write(keep))
            if writing:
                await writing
        except BaseException:
            # Not waited for, because a database may never answer. What was written of it holds, the rest is done anew.
            if writing:
                writing.cancel()
            raise

    async def _judged(self, stream: Stream, work: sealing.Work) -> bool:
        """Whether the rules have seen all frames that would go."""
        if not (self.waits_for_rules and work.frames):
            return True
        r = tables.rule_states.c
        async with self._engine.connect() as connection:
            judged = await connection.scalar(select(r.seq).where(r.writer == stream.id))
        return max(frame.seq for frame in work.frames) < (judged or 0)

    async def _write(self, job: Callable[[AsyncConnection], Awaitable[None]]) -> None:
        async def whole(connection: AsyncConnection) -> None:
            await job(connection)
            self._reached("before_seal")

        await self._writer.run(whole)
        self._reached("after_seal")
