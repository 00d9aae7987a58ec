"""A new writer: its run, its attempt, its layers."""

from __future__ import annotations

import json
from typing import Any

from gradwatch import frames
from gradwatch.frames import FrameError
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from . import tables, upsert
from .checks import Hello, LayersPart, check_widths, too_many_layers
from .decode import Layer
from .registry import Registry, RunState, WriterState

# Attempts may rename layers (a compiled model): a run shows the union, which must still fit one live column.
MOST_RUN_LAYERS = 2 * frames.MAX_LAYERS


async def introduce(
    connection: AsyncConnection, registry: Registry, said: Hello, now: float
) -> tuple[WriterState, RunState, dict[str, Any] | None]:
    """Write down a writer that was unknown; also the restart event, where it opens a further attempt."""
    run = await _run(connection, registry, said, now)
    number, opened = await _attempt(connection, run, said)
    if opened:
        await _open_attempt(connection, run, said, number, now)
    values: dict[str, Any] = {
        "key": said.writer,
        "run": run.id,
        "attempt": number,
        "rank": said.rank,
        "launch": said.launch,
        "norm_type": said.norm_type,
        "start_step": said.start_step,
        "state": "running",
        "steps_span": 0,
        "scalars_span": 0,
        "thinned_to": 0,
        "seen_at": now,
    }
    result = await connection.execute(insert(tables.writers).values(values).returning(tables.writers.c.id))
    del values["launch"]
    writer = WriterState(
        id=result.scalar_one(), reason=None, first_step=None, last_step=None, steps_to=None, ended_at=None, **values
    )
    registry.keep(writer)
    event = _restart(said, number, run.id) if opened and number > 1 else None
    return writer, run, event


async def _run(connection: AsyncConnection, registry: Registry, said: Hello, now: float) -> RunState:
    known = await registry.run(connection, said.run_id)
    if known is not None and known.deleted_at is None:
        return known
    if known is not None:
        # Only a training that began after the deletion may use the name again: an old one must not come back.
        if said.started_at <= (known.deleted_at or 0):
            raise FrameError("deleted", "the run was deleted on the server")
        await connection.execute(tables.runs.delete().where(tables.runs.c.id == said.run_id))
    await connection.execute(insert(tables.runs).values(_run_row(said, now)))
    run = RunState(said.run_id, 0 if known is None else known.attempt, None, None)
    registry.keep(run)
    return run


def _run_row(said: Hello, now: float) -> dict[str, Any]:
    return {
        "id": said.run_id,
        "project": said.project,
        "run": said.run,
        "name": said.name,
        "group_name": said.group,
        "tags": json.dumps(said.tags),
        "state": "running",
        "attempt": 0,
        "total_steps": said.total_steps,
        "started_at": said.started_at,
        "updated_at": now,
        "about": "{}",
    }


async def _attempt(connection: AsyncConnection, run: RunState, said: Hello) -> tuple[int, bool]:
    writers, attempts = tables.writers.c, tables.attempts.c
    same = (writers.run == run.id) & (writers.launch == said.launch) & (writers.rank == said.rank)
    generation = await connection.scalar(select(func.count()).select_from(tables.writers).where(same)) or 0
    mine = (attempts.run == run.id) & (attempts.launch == said.launch) & (attempts.generation == generation)
    number = await connection.scalar(select(attempts.number).where(mine))
    if number is not None:
        return number, False
    number = run.attempt + 1
    row = {
        "run": run.id,
        "number": number,
        "launch": said.launch,
        "generation": generation,
        "start_step": said.start_step,
        "started_at": said.started_at,
    }
    await connection.execute(insert(tables.attempts).values(row))
    return number, True


async def _open_attempt(connection: AsyncConnection, run: RunState, said: Hello, number: int, now: float) -> None:
    run.attempt = number
    run.last_step = said.start_step - 1 if said.start_step else None
    about = {**said.about, "start_step": said.start_step}
    values = {"attempt": number, "total_steps": said.total_steps, "about": json.dumps(about), "updated_at": now}
    await connection.execute(update(tables.runs).where(tables.runs.c.id == run.id).values(values))


def _restart(said: Hello, number: int, run: str) -> dict[str, Any]:
    return {
        "key": f"{said.writer}:0",
        "run": run,
        "attempt": number,
        "step": said.start_step,
        "time": said.started_at,
        "kind": "restart",
        "name": "restart",
        "text": f"attempt {number} begins at step {said.start_step}",
    }


async def learn_layers(connection: AsyncConnection, writer: WriterState, run: RunState, part: LayersPart) -> None:
    """Take in one part of a layer table. Raises FrameError where its base is unknown or it is too big."""
    base = writer.book.tables.get(part.base) if part.base is not None else None
    if part.base is not None and base is None:
        raise FrameError("table", "this layer table extends one that has not arrived: send that first")
    whole = (base.layers if base else ()) + tuple(part.layers)
    new = [layer for layer in part.layers if layer.name not in run.layers]
    if len(whole) > frames.MAX_LAYERS or len(run.layers) + len(new) > MOST_RUN_LAYERS:
        raise FrameError("field", too_many_layers(max(len(whole), len(run.layers) + len(new))))
    if len({layer.name for layer in whole}) != len(whole):
        raise FrameError("field", "'layers' names a layer twice")
    check_widths(part.columns, len(whole))
    if part.table in writer.book.tables:
        return
    await connection.execute(
        insert(tables.layer_tables).values(
            writer=writer.id,
            hash=part.table,
            position=len(writer.book.tables),
            base=part.base,
            layers=json.dumps([[layer.name, layer.shape, layer.numel, layer.order] for layer in part.layers]),
            columns=json.dumps([column.as_json() for column in part.columns]),
        )
    )
    writer.book.add(part.table, base, part.layers, part.columns)
    await _show_layers(connection, run, part.layers)


async def _show_layers(connection: AsyncConnection, run: RunState, layers: list[Layer]) -> None:
    """The run's own list, in which all its attempts and ranks meet; the newest word on shape and order wins."""
    rows = []
    for layer in layers:
        position = run.layers.setdefault(layer.name, len(run.layers))
        shape = json.dumps(layer.shape)
        rows.append(
            {"run": run.id, "position": position, "name": layer.name, "shape": shape, "numel": layer.numel}
            | {"execution_order": layer.order}
        )
    await upsert.replace(connection, tables.run_layers, rows)
