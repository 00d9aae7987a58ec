"""Frames of what is sampled now and then, read in bounded number and spread evenly over the steps."""

from __future__ import annotations

import asyncio
from typing import Final

from gradwatch import frames
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from . import tables
from .reading import Stream

# At most, of one kind: histograms of MAX_LAYERS layers take some 40 of the 128 KiB that a hook gives a frame.
_FRAMES_OF_A_STEP: Final = 64


async def load_samples(
    engine: AsyncEngine, stream: Stream, kind: int, steps: tuple[int, int], most: tuple[int, int]
) -> tuple[list[frames.Frame], bool]:
    """Frames of a stored kind that hold a step from..to, and whether some were left out.

    ``most``: about so many frames and bytes. Where there are more, those read are spread evenly over the steps.
    """
    (first, last), c = steps, tables.frames.c
    mine = (c.writer == stream.id) & (c.kind == kind) & (c.last_step >= first)
    overlap = mine & c.first_step.between(first - stream.scalars_span, last)
    async with engine.connect() as connection:
        total = await connection.scalar(select(func.count()).where(overlap)) or 0
        width = 1 if total <= most[0] else -(-(last - first + stream.scalars_span + 1) // most[0])
        # Reads the index alone, so that a million frames cost no more than their counting.
        groups = select(func.min(c.first_step)).where(overlap).group_by(c.first_step // width)
        starts = sorted((await connection.scalars(groups)).all())
    order = [starts[at] for at in _coarse_to_fine(len(starts))]
    found: list[tuple[int, frames.Frame]] = []
    size = done = 0
    while done < len(order) and len(found) < most[0] and size < most[1]:
        # As many steps as will fit by the size of those before; begins with one.
        some = max(1, min(200, (most[1] - size) * done // size if size else 1))
        chunk = order[done : done + some]
        done += some
        # Unordered, else SQLite would go through the whole writer in the wanted order.
        chosen = select(c.seq, c.data).where(mine, c.first_step.in_(chunk)).limit(_FRAMES_OF_A_STEP * some)
        async with engine.connect() as connection:
            rows = (await connection.execute(chosen)).all()
        size += sum(len(row.data) for row in rows)
        found += await asyncio.to_thread(lambda rows=rows: [(row.seq, frames.decode(row.data)) for row in rows])  # type: ignore[misc]
    found.sort(key=lambda pair: pair[0])
    return [frame for _, frame in found], len(found) < total


def _coarse_to_fine(count: int) -> list[int]:
    """The numbers below ``count``, so ordered that any beginning of them is spread evenly: 0, then the half, quarters.

    They are sorted by their bits in reverse (the sequence of van der Corput).
    """
    bits = max(1, (count - 1).bit_length())
    return sorted(range(count), key=lambda number: int(f"{number:0{bits}b}"[::-1], 2))
