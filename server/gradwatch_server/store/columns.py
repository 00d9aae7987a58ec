"""A range of a writer drawn as columns: from the coarsest clean buckets that fit, the rest from its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncEngine

from . import pyramid, reading, reduction
from .canvas import Canvas
from .cover import Plan, plan
from .decode import ScalarRows, StepRows, Steps
from .modules import Modules
from .pyramid import LEVELS, Buckets
from .reading import Books, Stream

Metric = Literal["none", "layer", "module"]

_FEW: Final = 4  # buckets of a column


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn, and of whom. ``positions``: the writer's layers (or modules) in the answer's order."""

    stream: Stream
    width: int
    metric: Metric
    modules: Modules
    positions: NDArray[np.intp]


async def draw(canvas: Canvas, engine: AsyncEngine, books: Books, drawing: Drawing, steps: tuple[int, int]) -> None:
    """Draw a writer's steps from..to."""
    stream, width = drawing.stream, drawing.width
    async with engine.connect() as connection:
        # One transaction for marks and buckets: what is not marked in it is as new as the frames it sees.
        dirty = await reading.load_dirty(connection, stream.id)
        cover = plan(*_widened(stream, *steps, width), width, dirty, stream.last_step or 0)
        found = []
        for level, low, high in cover.buckets:
            if level * low <= (stream.last_step or 0):
                for parts in _parts(drawing.metric):
                    rows = await reading.load_buckets(connection, stream.id, level, parts, (low, high))
                    found.append((level, (low, high), rows))
    for level, buckets, some in found:
        await asyncio.to_thread(_draw_buckets, canvas, drawing, level, buckets, some)
    await _draw_steps(canvas, engine, books, drawing, cover)


def positions_of(own: Sequence[str], wanted: Sequence[str]) -> NDArray[np.intp]:
    """Where each of a writer's layers stands among the wanted ones; -1: nowhere."""
    index = {name: at for at, name in enumerate(wanted)}
    return np.array([index.get(name, -1) for name in own], np.intp)


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
    wanted = [(pyramid.SCALARS, pyramid.USER)]
    if metric == "layer":
        wanted.append((pyramid.LAYERS, pyramid.MODULES - 1))
    if metric == "module":
        wanted.append((pyramid.MODULES, pyramid.END))
    return wanted


def _draw_buckets(
    canvas: Canvas, drawing: Drawing, level: int, buckets: tuple[int, int], rows: Sequence[tuple[int, int, bytes]]
) -> None:
    """``rows``: (part, packed, data), packed ones first. Of a bucket that both kinds hold the fresh one is drawn."""
    pieces = [(pyramid.kind_of(part), packed, pyramid.unpack(data, level)) for part, packed, data in rows]
    renewed: dict[int, list[Steps]] = {}
    for kind, packed, piece in pieces:
        if not packed:
            renewed.setdefault(kind, []).append(piece.buckets)
    for kind, packed, piece in pieces:
        inside = (piece.buckets >= buckets[0]) & (piece.buckets <= buckets[1])
        if packed and kind in renewed:
            inside &= ~np.isin(piece.buckets, np.concatenate(renewed[kind]))
        _draw(canvas, drawing, piece if inside.all() else piece.pick(inside), drawing.width // level)


def _draw(canvas: Canvas, drawing: Drawing, piece: Buckets, factor: int) -> None:
    if factor > _FEW:
        piece, factor = piece.coarser(factor), 1
    for phase in range(factor):
        # Every second bucket falls into a column of its own, so that the canvas can add them up by itself.
        some = piece if factor == 1 else piece.every(factor, phase)
        if piece.names is None:
            canvas.draw_numbered(some, drawing.positions)
        else:
            canvas.draw_named(some)


async def _draw_steps(canvas: Canvas, engine: AsyncEngine, books: Books, drawing: Drawing, cover: Plan) -> None:
    layers = drawing.metric != "none"
    for low, high in cover.raw:
        pieces = reading.step_pieces(engine, books, drawing.stream, low, high, layers=layers)
        async for first, last, rows in pieces:
            user = await reading.read_user(engine, drawing.stream, first, last)
            await asyncio.to_thread(_draw_rows, canvas, drawing, rows, user)


def _draw_rows(canvas: Canvas, drawing: Drawing, rows: StepRows, user: ScalarRows) -> None:
    width = drawing.width
    pieces = reduction.user_of(user, width)
    if len(rows.steps):
        pieces.append(reduction.scalars_of(rows, width))
        if drawing.metric == "layer":
            pieces.append(reduction.layers_of(rows, width))
        elif drawing.metric == "module":
            own = drawing.modules.of_first(rows.layers.shape[1])
            pieces.append(reduction.modules_of_rows(rows, own, drawing.stream.norm_type, width))
    for piece in pieces:
        _draw(canvas, drawing, piece, 1)
