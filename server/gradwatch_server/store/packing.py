"""The pyramid's upper levels, made from those below; and groups of fresh rows packed into rows made for reading."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from . import pyramid, reading, tables, upsert
from .marks import Mark, clear, follow, runs_of
from .pyramid import FANOUT, FINEST, GROUP, Buckets
from .reading import Stream
from .tiles import FRESH_HEAD, FRESH_USER, HEAD, PACKED, USER, joined_user, pack_head, pack_user

_EVERYTHING: Final = (0, pyramid.END)


@dataclass(slots=True)
class Work:
    """Rows to write, and which fresh ones they stand for."""

    tiles: list[dict[str, Any]] = field(default_factory=list)
    pyramid: list[dict[str, Any]] = field(default_factory=list)


async def merge(engine: AsyncEngine, stream: Stream, marks: Sequence[Mark]) -> list[dict[str, Any]]:
    """Rows of the marked buckets."""
    level = marks[0].level
    found: list[dict[str, Any]] = []
    for low, high in runs_of(marks):
        children = (low * FANOUT, high * FANOUT + FANOUT - 1)
        async with engine.connect() as connection:
            rows = await reading.load_buckets(connection, stream.id, level // FANOUT, _EVERYTHING, children)
        found += await asyncio.to_thread(_parents, stream.id, level, children, rows)
    return found


async def keep_merged(
    connection: AsyncConnection, stream: Stream, marks: Sequence[Mark], rows: Sequence[dict[str, Any]]
) -> None:
    """Write the rows of merged buckets."""
    if await _is_deleted(connection, stream):
        return
    await upsert.replace(connection, tables.pyramid, rows)
    await clear(connection, stream.id, marks)
    await follow(connection, stream.id, marks[0].level, [mark.bucket for mark in marks])


def _parents(
    writer: int, level: int, children: tuple[int, int], rows: Sequence[tuple[int, int, bytes]]
) -> list[dict[str, Any]]:
    found = []
    for kind, whole in _joined(rows, level // FANOUT, children).items():
        parents = whole.coarser(FANOUT)
        for at, bucket in enumerate(parents.buckets.tolist()):
            one = parents.pick(slice(at, at + 1))
            row = {"writer": writer, "level": level, "part": kind, "first": bucket, "packed": 0}
            found.append(row | {"data": pyramid.pack(one, level, _dtype(one))})
    return found


def _joined(rows: Sequence[tuple[int, int, bytes]], level: int, buckets: tuple[int, int]) -> dict[int, Buckets]:
    """What rows, packed ones first, hold of some buckets, by kind; of a bucket that both kinds hold the fresh one."""
    parts: dict[int, list[Buckets]] = {}
    renewed: dict[int, set[int]] = {}
    for part, packed, data in reversed(rows):
        piece, kind = pyramid.unpack(data, level, whole=True), pyramid.kind_of(part)
        inside = (piece.buckets >= buckets[0]) & (piece.buckets <= buckets[1])
        if packed:
            inside &= ~np.isin(piece.buckets, list(renewed.get(kind, ())))
        else:
            renewed.setdefault(kind, set()).update(piece.buckets.tolist())
        if inside.any():
            parts.setdefault(kind, []).append(piece if inside.all() else piece.pick(inside))
    return {kind: pyramid.joined(some) for kind, some in parts.items()}


async def pack(engine: AsyncEngine, stream: Stream, marks: Sequence[Mark]) -> Work:
    """The marked groups as packed rows; of the finest level also their heads and logged values."""
    level, work = -marks[0].level, Work()
    for mark in marks:
        buckets = (mark.bucket * GROUP, mark.bucket * GROUP + GROUP - 1)
        first, last = buckets[0] * level, (buckets[1] + 1) * level - 1
        async with engine.connect() as connection:
            rows = await reading.load_buckets(connection, stream.id, level, _EVERYTHING, buckets)
            stored = user = None
            if level == FINEST:
                stored = await reading.load_stored(connection, stream, first, last, layers=False)
                user, _ = await reading.load_user(connection, stream, first, last)
        work.pyramid += await asyncio.to_thread(_packed, stream.id, level, buckets, rows)
        if stored is not None and user is not None:
            work.tiles += await asyncio.to_thread(_packed_heads, stream.id, (first, last), stored, user)
    return work


async def keep_packed(connection: AsyncConnection, stream: Stream, marks: Sequence[Mark], work: Work) -> None:
    """Write packed rows in the place of those that they are made of."""
    if await _is_deleted(connection, stream):
        return
    p, t, level = tables.pyramid.c, tables.tiles.c, -marks[0].level
    await upsert.replace(connection, tables.tiles, work.tiles)
    for mark in marks:
        first = mark.bucket * GROUP
        mine = (p.writer == stream.id) & (p.level == level)
        await connection.execute(tables.pyramid.delete().where(mine, p.first.between(first, first + GROUP - 1)))
        if level == FINEST:
            fresh = (t.writer == stream.id) & t.part.in_((FRESH_HEAD, FRESH_USER))
            within = t.first.between(first * level, (first + GROUP) * level - 1)
            await connection.execute(tables.tiles.delete().where(fresh, within))
    await upsert.replace(connection, tables.pyramid, work.pyramid)
    await clear(connection, stream.id, marks)


def _packed(
    writer: int, level: int, buckets: tuple[int, int], rows: Sequence[tuple[int, int, bytes]]
) -> list[dict[str, Any]]:
    found = []
    for kind, whole in _joined(rows, level, buckets).items():
        pieces = [(0, whole)] if whole.names is not None else pyramid.chunks(whole)
        for number, piece in pieces:
            row = {"writer": writer, "level": level, "part": kind + number, "first": buckets[0], "packed": 1}
            found.append(row | {"data": pyramid.pack(piece, level, _dtype(piece))})
    return found


def _packed_heads(
    writer: int, steps: tuple[int, int], stored: reading.Stored, user: Sequence[Any]
) -> list[dict[str, Any]]:
    key = {"writer": writer, "first": steps[0], "last": steps[0] + PACKED - 1}
    found = []
    heads = reading.sealed_rows(stored, 0, steps[0], steps[1] + 1)
    if len(heads.seqs):
        row = {"part": HEAD, "time": float(heads.rows.times[-1]), "data": pack_head(heads)}
        found.append(key | row)
    logged = joined_user([part.between(*steps) for part in user])
    if len(logged.steps):
        found.append(key | {"part": USER, "time": None, "data": pack_user(logged)})
    return found


def _dtype(some: Buckets) -> str:
    return f"<f{some.values.minimum.dtype.itemsize}"


async def _is_deleted(connection: AsyncConnection, stream: Stream) -> bool:
    w = tables.writers.c
    return await connection.scalar(select(w.state).where(w.id == stream.id)) == "deleted"
