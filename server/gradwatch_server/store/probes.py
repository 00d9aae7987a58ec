"""Probes of a view: first where there are any, from an index alone; then the frames of those that are chosen."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from gradwatch import frames
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from . import tables
from .landscape_frames import Name, ProbeRows, decode_landscape, stored_kind
from .views import Segment, View

_AT_ONCE: Final = 200  # frames, or steps, that one query names
MOST_KEPT: Final = 32 << 20  # bytes of frames in memory: a page that watches asks for nearly the same ones every second
_OBJECTS: Final = 2_500  # bytes that a decoded frame takes beside its own


@dataclass(frozen=True, slots=True)
class Anchor:
    """The frames of one writer that begin at ``step``: for all parts but the trajectory the step they are about."""

    writer: int
    attempt: int
    step: int
    last_step: int
    frames: int


@dataclass(frozen=True, slots=True)
class _Listed:
    writer: int
    attempt: int
    seq: int
    size: int


class _Kept:
    """The frames used last, decoded. A frame never changes, and a writer's number is given only once."""

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[int, int], tuple[ProbeRows, int]] = OrderedDict()
        self._size = 0

    def get(self, one: _Listed) -> ProbeRows | None:
        """The rows of a frame, if they are here."""
        found = self._rows.get((one.writer, one.seq))
        if found is None:
            return None
        self._rows.move_to_end((one.writer, one.seq))
        return found[0]

    def put(self, one: _Listed, rows: ProbeRows) -> None:
        """Keep a frame's rows; those not used for longest make room."""
        if (one.writer, one.seq) in self._rows:
            return
        size = one.size + _OBJECTS
        self._rows[one.writer, one.seq] = rows, size
        self._size += size
        while self._size > MOST_KEPT:
            self._size -= self._rows.popitem(last=False)[1][1]


class Probes:
    """Reads of what a store holds of probes. ``heavy`` bounds how many long reads there are at a time."""

    def __init__(self, engine: AsyncEngine, heavy: asyncio.Semaphore) -> None:
        self._engine, self._heavy = engine, heavy
        self._kept = _Kept()

    async def anchors(self, view: View, *names: Name) -> list[Anchor]:
        """Where the view has frames of some parts, by attempt and step."""
        c = tables.frames.c
        found: list[Anchor] = []
        for segment in view.segments:
            grouped = select(c.first_step, func.max(c.last_step), func.count())
            inside = grouped.where(_within(segment, names)).group_by(c.first_step).order_by(c.first_step)
            async with self._engine.connect() as connection:
                rows = (await connection.execute(inside)).all()
            found += [Anchor(segment.stream.id, segment.stream.attempt, *row) for row in rows]
        return found

    async def newest(self, view: View, name: Name) -> list[Anchor]:
        """The last anchor of a part in each of the view's segments."""
        step = tables.frames.c.first_step
        found: list[Anchor] = []
        for segment in view.segments:
            async with self._engine.connect() as connection:
                last = await connection.scalar(select(func.max(step)).where(_within(segment, (name,))))
            if last is not None:
                found.append(Anchor(segment.stream.id, segment.stream.attempt, last, last, 1))
        return found

    async def counts(self, anchors: Sequence[Anchor], *names: Name) -> dict[Anchor, int]:
        """How many rows the frames of some parts hold at each anchor."""
        c = tables.frames.c
        found: dict[Anchor, int] = {}
        for writer, steps in _steps_of(anchors).items():
            for some in _chunks(steps):
                summed = select(c.first_step, func.sum(c.rows)).where(_at(writer, names, some)).group_by(c.first_step)
                async with self._engine.connect() as connection:
                    rows = {step: int(count) for step, count in await connection.execute(summed)}
                found |= {a: rows[a.step] for a in anchors if a.writer == writer and a.step in rows}
        return found

    async def load(self, anchors: Sequence[Anchor], most: int, *names: Name) -> tuple[list[ProbeRows], bool]:
        """The frames of some parts at the anchors, later ones last, and whether some were left out.

        About ``most`` bytes are read; the anchors named first go before the others.
        """
        async with self._heavy:
            listed = await self._list(anchors, names)
            chosen: list[_Listed] = []
            left = most
            for one in listed:
                if left > 0:
                    chosen.append(one)
                left -= one.size
            found = await self._read(chosen)
        return found, len(chosen) < len(listed)

    async def _list(self, anchors: Sequence[Anchor], names: Sequence[Name]) -> list[_Listed]:
        c = tables.frames.c
        order = {(anchor.writer, anchor.step): (at, anchor.attempt) for at, anchor in enumerate(anchors)}
        found: list[tuple[int, int, _Listed]] = []
        for writer, steps in _steps_of(anchors).items():
            for some in _chunks(steps):
                # The length alone: neither database reads the data for it.
                chosen = select(c.first_step, c.seq, func.length(c.data)).where(_at(writer, names, some))
                async with self._engine.connect() as connection:
                    rows = (await connection.execute(chosen)).all()
                for step, seq, size in rows:
                    at, attempt = order[writer, step]
                    found.append((at, seq, _Listed(writer, attempt, seq, size)))
        return [one for _, _, one in sorted(found, key=lambda item: item[:2])]

    async def _read(self, listed: Sequence[_Listed]) -> list[ProbeRows]:
        c = tables.frames.c
        found = {one: rows for one in listed if (rows := self._kept.get(one)) is not None}
        for writer in sorted({one.writer for one in listed}):
            missing = {one.seq: one for one in listed if one.writer == writer and one not in found}
            for some in _chunks(list(missing)):
                chosen = select(c.seq, c.data).where(c.writer == writer, c.seq.in_(some))
                async with self._engine.connect() as connection:
                    data = [(missing[seq], bytes(data)) for seq, data in await connection.execute(chosen)]
                found |= await asyncio.to_thread(_decoded, data)
                for one, _ in data:
                    self._kept.put(one, found[one])
        return [found[one] for one in sorted(found, key=lambda one: (one.attempt, one.seq))]


def _decoded(data: Sequence[tuple[_Listed, bytes]]) -> dict[_Listed, ProbeRows]:
    return {one: decode_landscape(frames.decode(frame), one.attempt) for one, frame in data}


def _within(segment: Segment, names: Collection[Name]) -> ColumnElement[bool]:
    c = tables.frames.c
    mine = (c.writer == segment.stream.id) & c.kind.in_([stored_kind(name) for name in names])
    return mine & c.first_step.between(segment.stream.start_step, segment.until)


def _at(writer: int, names: Collection[Name], steps: Sequence[int]) -> ColumnElement[bool]:
    c = tables.frames.c
    kinds = [stored_kind(name) for name in names]
    return (c.writer == writer) & c.kind.in_(kinds) & c.first_step.in_(steps)


def _steps_of(anchors: Sequence[Anchor]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for anchor in anchors:
        found.setdefault(anchor.writer, []).append(anchor.step)
    return found


def _chunks(numbers: Sequence[int]) -> list[Sequence[int]]:
    return [numbers[at : at + _AT_ONCE] for at in range(0, len(numbers), _AT_ONCE)]
