"""A range of a run as columns: from the coarsest clean buckets that fit, the rest from raw steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncEngine

from . import reading, rollup
from .aggregate import Aggregate
from .cover import Plan, plan
from .decode import Steps
from .modules import modules_of
from .reading import Books, Stream
from .rollup import LEVELS, Named, Numbered

Metric = Literal["none", "layer", "module"]

_MOST_STEPS: Final = 2**53


@dataclass(slots=True)
class _Found:
    """Pieces gathered from buckets and raw steps."""

    named: list[Named] = field(default_factory=list)
    numbered: list[Numbered] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StreamColumns:
    """Columns of one writer. ``layers`` are numbered as the writer numbers them; ``names`` tells which they are."""

    scalars: Named
    layers: Numbered
    names: list[str]


async def stream_columns(
    engine: AsyncEngine, books: Books, stream: Stream, first: int, last: int, width: int, metric: Metric
) -> StreamColumns:
    """The columns of ``width`` steps that first..last of a writer reduce to."""
    found = _Found()
    book = await books.of(stream)
    layers = [layer.name for layer in book.layers]
    async with engine.connect() as connection:
        # One transaction for marks and buckets: what is not marked in it is as new as the frames it sees.
        dirty = await reading.load_dirty(connection, stream.id)
        cover = plan(*_widened(stream, first, last, width), width, dirty)
        for level, low, high in cover.buckets:
            if level * low > (stream.last_step or 0):
                continue
            for parts in _parts(metric):
                rows = await reading.load_buckets(connection, stream.id, level, parts, (low, high))
                _take_buckets(found, rows, level, width)
    names = modules_of(layers).names if metric == "module" else layers
    await _take_raw(found, engine, books, stream, cover, width, metric)
    count = len(names) if metric != "none" else 0
    numbered = rollup.combine_numbered([_padded(piece, count) for piece in found.numbered], count)
    return StreamColumns(rollup.combine_named(found.named), numbered, names)


def _widened(stream: Stream, first: int, last: int, width: int) -> tuple[int, int]:
    """Beyond the writer's own ends there is nothing, so that whole buckets may be used there."""
    if stream.first_step is None or stream.last_step is None:
        return 0, -1
    level = max((level for level in LEVELS if level <= width), default=1)
    if first <= stream.first_step:
        first = stream.first_step // level * level
    if last >= stream.last_step:
        last = (stream.last_step // level + 1) * level - 1
    return first, last


def _parts(metric: Metric) -> list[tuple[int, int]]:
    wanted = [(rollup.SCALARS, rollup.USER)]
    if metric == "layer":
        wanted.append((rollup.LAYERS, rollup.MODULES - 1))
    if metric == "module":
        wanted.append((rollup.MODULES, 2 * rollup.MODULES - 1))
    return wanted


def _take_buckets(found: _Found, rows: Sequence[tuple[int, int, bytes]], level: int, width: int) -> None:
    per_column = width // level
    named = [(bucket, data) for part, bucket, data in rows if part <= rollup.USER]
    for piece in rollup.unpack_named([bucket for bucket, _ in named], [data for _, data in named]):
        found.named.append(Named(piece.names, piece.columns // per_column, piece.values))
    numbered = [row for row in rows if row[0] > rollup.USER]
    if numbered:
        whole = rollup.unpack_numbered(numbered)
        found.numbered.append(Numbered(whole.columns // per_column, whole.values))


async def _take_raw(
    found: _Found, engine: AsyncEngine, books: Books, stream: Stream, cover: Plan, width: int, metric: Metric
) -> None:
    for low, high in cover.raw:
        async for first, last, rows in reading.step_pieces(engine, books, stream, low, high):
            if len(rows.steps):
                found.named.append(rollup.scalars_of(rows, width))
                if metric != "none" and rows.layers.shape[1]:
                    book = await books.of(stream)
                    modules = modules_of([layer.name for layer in book.layers[: rows.layers.shape[1]]])
                    found.numbered.append(
                        rollup.layers_of(rows, width)
                        if metric == "layer"
                        else rollup.modules_of_rows(rows, modules, stream.norm_type, width)
                    )
            user = await reading.read_user(engine, stream, first, last)
            found.named += rollup.user_of(user, first, last, width)


def _padded(piece: Numbered, series: int) -> Numbered:
    have = piece.values.count.shape[1]
    if have == series:
        return piece
    if have > series:  # layers that came after the book was read
        return Numbered(piece.columns, piece.values.series(slice(0, series)))
    wide = Aggregate.empty(len(piece.columns), series)
    wide.put(range(len(piece.columns)), range(have), piece.values)
    return Numbered(piece.columns, wide)


def renumbered(piece: Numbered, positions: NDArray[np.intp], series: int) -> Numbered:
    """The writer's numbering to another: series i goes to ``positions[i]``; a negative position is left out."""
    if len(positions) == series and np.array_equal(positions, np.arange(series)):
        return piece
    wide = Aggregate.empty(len(piece.columns), series)
    there = np.flatnonzero(positions >= 0)
    wide.put(range(len(piece.columns)), positions[there], piece.values.series(there))
    return Numbered(piece.columns, wide)


def union(columns: Sequence[Steps]) -> Steps:
    """All columns that occur, in order."""
    return np.unique(np.concatenate(columns)) if columns else np.zeros(0, np.int64)
