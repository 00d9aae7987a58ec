"""Marks of what the sealer has to do: its durable cursor, written in the transaction that makes the work.

``level`` BLOCK: that block (``bucket``) is to be sealed. Above: that bucket of the pyramid is to be made from those of
the level below. Below zero: that group of buckets of the level -``level`` is to be packed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sqlalchemy import bindparam, case, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from . import tables, upsert
from .pyramid import FANOUT, GROUP, LEVELS
from .reading import Stream, load_streams
from .tiles import BLOCK

AT_ONCE: Final = 64  # marks in one transaction


class Task(Enum):
    """The three kinds of work."""

    SEAL = 0
    MERGE = 1
    PACK = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """One row of ``dirty``."""

    level: int
    bucket: int
    version: int


async def next_marks(
    connection: AsyncConnection, task: Task, passed_over: Collection[int], *, unfinished: bool
) -> tuple[Stream, list[Mark]] | None:
    """Marks of one writer and level. Of writers still at work only what no further step will fall into, unless
    ``unfinished``; none of the writers ``passed_over``."""
    d, w = tables.dirty.c, tables.writers.c
    kind = {Task.SEAL: d.level == BLOCK, Task.MERGE: d.level > BLOCK, Task.PACK: d.level < 0}[task]
    span = case((d.level < 0, -d.level * GROUP), else_=d.level)
    closed = true() if unfinished else or_((d.bucket + 1) * span <= w.last_step, w.state != "running")
    wanted = kind & closed & (w.state != "deleted") & w.id.not_in(passed_over)
    joined = select(d.writer, d.level, w.run).join(tables.writers, w.id == d.writer).where(wanted)
    first = (await connection.execute(joined.order_by(d.level, d.writer).limit(1))).first()
    if first is None:
        return None
    mine = (d.writer == first.writer) & (d.level == first.level)
    chosen = select(d.level, d.bucket, d.version).join(tables.writers, w.id == d.writer).where(wanted, mine)
    rows = await connection.execute(chosen.order_by(d.bucket).limit(AT_ONCE))
    marks = [Mark(*row) for row in rows]
    streams = await load_streams(connection, first.run)
    return next((s, marks) for s in streams if s.id == first.writer)


async def clear(connection: AsyncConnection, writer: int, marks: Sequence[Mark]) -> None:
    """Take marks away; one that was renewed since it was read stays, and its work is done once more."""
    d = tables.dirty.c
    mine = (d.writer == writer) & (d.level == bindparam("l")) & (d.bucket == bindparam("b"))
    statement = tables.dirty.delete().where(mine, d.version == bindparam("v"))
    await connection.execute(statement, [{"l": m.level, "b": m.bucket, "v": m.version} for m in marks])


async def follow(connection: AsyncConnection, writer: int, level: int, buckets: Iterable[int]) -> None:
    """Buckets of a level were written: those above them are to be made, and their group is to be packed.

    Nothing is made above a writer's first bucket while it has no other: see ``cover.plan``.
    """
    some = list(buckets)
    marks = [(writer, -level, bucket // GROUP) for bucket in some]
    if BLOCK <= level < LEVELS[-1]:
        last = await connection.scalar(select(tables.writers.c.last_step).where(tables.writers.c.id == writer))
        if (last or 0) >= level:
            marks += [(writer, level * FANOUT, bucket // FANOUT) for bucket in some]
    await upsert.mark_dirty(connection, tables.dirty, marks)


def grown(writer: int, before: int | None, after: int) -> list[tuple[int, int, int]]:
    """Marks for when a writer's last step grows: what lies above its first buckets, where ``follow`` made nothing yet.

    Steps that were sealed while they were the last, as those of a lost run are, may have none behind them for long.
    """
    if before is None:
        return []
    return [(writer, level * FANOUT, 0) for level in LEVELS[1:-1] if before < level <= after]


def runs_of(marks: Sequence[Mark], most: int = AT_ONCE) -> list[tuple[int, int]]:
    """Buckets that follow one another, so that they are read together: (first, last), at most ``most`` of them."""
    runs: list[tuple[int, int]] = []
    for mark in marks:
        if runs and runs[-1][1] + 1 == mark.bucket and mark.bucket - runs[-1][0] < most:
            runs[-1] = (runs[-1][0], mark.bucket)
        else:
            runs.append((mark.bucket, mark.bucket))
    return runs
