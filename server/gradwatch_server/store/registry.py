"""What the server remembers of runs and writers between frames; the database stays the truth."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gradwatch import frames
from gradwatch.frames import Column
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from . import sealed, tables
from .decode import LAYER_METRIC, Layer, LayerTable
from .ranges import Ranges


@dataclass(slots=True)
class RunState:
    """One run."""

    id: str
    attempt: int
    deleted_at: float | None
    last_step: int | None
    layers: dict[str, int] = field(default_factory=dict)
    user_series: set[str] = field(default_factory=set)


@dataclass(slots=True)
class LayerBook:
    """How to read a writer's step frames: its layer tables, and its own append-only numbering of layers."""

    tables: dict[str, LayerTable] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether some norms are float64."""
        return any(c.name == LAYER_METRIC and c.dtype == "f8" for table in self.tables.values() for c in table.columns)

    def add(self, name: str, base: LayerTable | None, layers: list[Layer], columns: list[Column]) -> LayerTable:
        """Take in one part of a layer table; names seen before keep their number."""
        whole = (base.layers if base else ()) + tuple(layers)
        for layer in whole:
            if layer.name not in self.positions:
                self.positions[layer.name] = len(self.layers)
                self.layers.append(layer)
            else:
                self.layers[self.positions[layer.name]] = layer
        positions = np.fromiter((self.positions[layer.name] for layer in whole), np.intp, len(whole))
        self.tables[name] = LayerTable(name, whole, tuple(columns or (base.columns if base else ())), positions)
        return self.tables[name]


@dataclass(slots=True)
class WriterState:
    """One writer: what arrived of it, and how to read its frames."""

    id: int
    key: str
    run: str
    attempt: int
    rank: int
    norm_type: float
    start_step: int
    state: str
    reason: str | None
    first_step: int | None
    last_step: int | None
    steps_span: int
    scalars_span: int
    steps_to: int | None
    thinned_to: int
    seen_at: float
    ended_at: float | None
    seqs: Ranges = field(default_factory=Ranges)
    book: LayerBook = field(default_factory=LayerBook)
    acked: tuple[int, list[list[int]]] = (-1, [])  # what is committed, as an ack says it


class Registry:
    """Runs and writers by their keys, loaded when first asked for."""

    def __init__(self) -> None:
        self._writers: dict[str, WriterState] = {}
        self._runs: dict[str, RunState] = {}

    def known(self, key: str) -> WriterState | None:
        """A writer that is in memory."""
        return self._writers.get(key)

    def known_run(self, run: str) -> RunState | None:
        """A run that is in memory."""
        return self._runs.get(run)

    def keep(self, thing: WriterState | RunState) -> None:
        """Remember a new writer or run."""
        if isinstance(thing, WriterState):
            self._writers[thing.key] = thing
        else:
            self._runs[thing.id] = thing

    def forget(self, writers: set[str], runs: set[str]) -> None:
        """Drop what a failed transaction may have left half changed; it is loaded afresh when next asked for."""
        for key in writers:
            self._writers.pop(key, None)
        for run in runs:
            self._runs.pop(run, None)

    async def writer(self, connection: AsyncConnection, key: str) -> WriterState | None:
        """The writer of that key, or None where it never said hello."""
        state = self._writers.get(key)
        if state is None:
            row = (await connection.execute(select(tables.writers).where(tables.writers.c.key == key))).first()
            if row is None:
                return None
            state = writer_from_row(row)
            state.seqs = await _load_seqs(connection, state.id)
            state.acked = (state.seqs.through, state.seqs.beyond())
            state.book = await load_book(connection, state.id)
            self._writers[key] = state
        return state

    async def run(self, connection: AsyncConnection, run: str) -> RunState | None:
        """The run of that id, or None."""
        state = self._runs.get(run)
        if state is None:
            row = (await connection.execute(select(tables.runs).where(tables.runs.c.id == run))).first()
            if row is None:
                return None
            state = RunState(row.id, row.attempt, row.deleted_at, row.last_step)
            layers, series = tables.run_layers.c, tables.user_series.c
            found = await connection.execute(select(layers.name, layers.position).where(layers.run == run))
            state.layers = {name: position for name, position in found}
            state.user_series = set((await connection.scalars(select(series.name).where(series.run == run))).all())
            self._runs[run] = state
        return state


def writer_from_row(row: Any) -> WriterState:
    """A writer as its row tells, without its frames and tables."""
    names = ("id", "key", "run", "attempt", "rank", "norm_type", "start_step", "state", "reason", "first_step")
    more = ("last_step", "steps_span", "scalars_span", "steps_to", "thinned_to", "seen_at", "ended_at")
    return WriterState(*(getattr(row, name) for name in names + more))


async def load_book(connection: AsyncConnection, writer: int) -> LayerBook:
    """The writer's layer tables, taken in by their order of arrival."""
    book = LayerBook()
    columns = tables.layer_tables.c
    rows = await connection.execute(
        select(tables.layer_tables).where(columns.writer == writer).order_by(columns.position)
    )
    for row in rows:
        layers = [Layer(name, tuple(shape), numel, order) for name, shape, numel, order in json.loads(row.layers)]
        base = book.tables[row.base] if row.base else None
        book.add(row.hash, base, layers, frames.columns_from_json(json.loads(row.columns)))
    return book


async def _load_seqs(connection: AsyncConnection, writer: int) -> Ranges:
    seq = tables.frames.c.seq
    hot = (await connection.scalars(select(seq).where(tables.frames.c.writer == writer))).all()
    return Ranges.of(np.concatenate([np.array(hot, np.int64), await sealed.load_seqs(connection, writer)]))
