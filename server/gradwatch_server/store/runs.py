"""Runs, events and alerts as the outside sees them, and the few changes that people make to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, insert, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from . import tables
from .states import combine

_RUN_FIELDS = ("id", "project", "name", "state", "reason", "attempt", "last_step", "total_steps", "started_at")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs are asked for."""

    project: str | None = None
    state: str | None = None
    text: str | None = None
    limit: int = 50
    offset: int = 0


async def list_runs(connection: AsyncConnection, wanted: Filter) -> tuple[list[dict[str, Any]], int]:
    """A page of runs, newest first, and how many there are."""
    c = tables.runs.c
    where: ColumnElement[bool] = c.deleted_at.is_(None)
    where &= c.project == wanted.project if wanted.project is not None else true()
    where &= c.state == wanted.state if wanted.state is not None else true()
    if wanted.text:
        fields = (c.name, c.run, c.project, c.tags, c.group_name)
        where &= or_(*(field.icontains(wanted.text, autoescape=True) for field in fields))
    total = await connection.scalar(select(func.count()).select_from(tables.runs).where(where)) or 0
    page = select(tables.runs).where(where).order_by(c.started_at.desc(), c.id).limit(wanted.limit)
    rows = (await connection.execute(page.offset(wanted.offset))).all()
    return await _as_json(connection, rows), total


async def get_run(connection: AsyncConnection, run: str) -> dict[str, Any] | None:
    """One run, or None where there is none (any more)."""
    c = tables.runs.c
    row = (await connection.execute(select(tables.runs).where(c.id == run, c.deleted_at.is_(None)))).first()
    return None if row is None else (await _as_json(connection, [row]))[0]


async def get_about(connection: AsyncConnection, run: str) -> dict[str, Any]:
    """What the newest hello said: config, clip, norm_type, host, ...; whether the run takes commands, and which."""
    stored = await connection.scalar(select(tables.runs.c.about).where(tables.runs.c.id == run))
    about = json.loads(stored or "{}")
    # Runs stored before the first command know nothing of it, and those before the second one only that one.
    return {"control": False, "commands": ["probe_landscape"] if about.get("control") else [], **about}


async def get_attempts(connection: AsyncConnection, run: str) -> list[dict[str, Any]]:
    """The attempts of a run."""
    a, w = tables.attempts.c, tables.writers.c
    writers = (await connection.execute(select(tables.writers).where(w.run == run).order_by(w.rank))).all()
    found = []
    for row in await connection.execute(select(tables.attempts).where(a.run == run).order_by(a.number)):
        mine = [writer for writer in writers if writer.attempt == row.number and writer.state != "deleted"]
        state, reason, _ = combine(mine)
        last = max((writer.last_step for writer in mine if writer.last_step is not None), default=None)
        found.append(
            {"number": row.number, "start_step": row.start_step, "last_step": last, "state": state, "reason": reason}
            | {"started_at": row.started_at}
        )
    return found


async def _as_json(connection: AsyncConnection, rows: Sequence[Any]) -> list[dict[str, Any]]:
    ids = [row.id for row in rows]
    a, w = tables.alerts.c, tables.writers.c
    counted = select(a.run, func.count()).where(a.run.in_(ids), a.state == "open").group_by(a.run)
    open_alerts = {run: count for run, count in await connection.execute(counted)}
    ranks: dict[str, set[int]] = {}
    for run, rank in await connection.execute(select(w.run, w.rank).where(w.run.in_(ids), w.state != "deleted")):
        ranks.setdefault(run, set()).add(rank)
    return [
        {name: getattr(row, name) for name in _RUN_FIELDS}
        | {"group": row.group_name, "tags": json.loads(row.tags), "updated_at": row.updated_at}
        | {"ended_at": row.ended_at, "ranks": sorted(ranks.get(row.id, ()))}
        | {"alerts": {"open": open_alerts.get(row.id, 0)}}
        for row in rows
    ]


async def list_events(connection: AsyncConnection, run: str, kind: str | None, limit: int) -> list[dict[str, Any]]:
    """Events of a run in step order; where there are too many, the newest."""
    c = tables.events.c
    where = (c.run == run) & (c.kind == kind if kind is not None else true())
    rows = (await connection.execute(select(tables.events).where(where).order_by(c.id.desc()).limit(limit))).all()
    return [event_json(row._asdict()) for row in sorted(rows, key=lambda row: (row.step, row.id))]


async def list_alerts(
    connection: AsyncConnection, run: str | None, state: str | None, limit: int
) -> list[dict[str, Any]]:
    """Alerts, newest first."""
    c = tables.alerts.c
    where = (c.run == run if run is not None else true()) & (c.state == state if state is not None else true())
    rows = await connection.execute(
        select(tables.alerts).where(where).order_by(c.created_at.desc(), c.id.desc()).limit(limit)
    )
    return [alert_json(row) for row in rows]


async def acknowledge(connection: AsyncConnection, alert: int, now: float) -> dict[str, Any] | None:
    """Mark an alert as seen; None where there is no such alert."""
    c = tables.alerts.c
    await connection.execute(update(tables.alerts).where(c.id == alert).values(state="acknowledged", updated_at=now))
    row = (await connection.execute(select(tables.alerts).where(c.id == alert))).first()
    return None if row is None else alert_json(row)


async def add_event(connection: AsyncConnection, event: dict[str, Any]) -> None:
    """Write down what did not come in a frame."""
    await connection.execute(insert(tables.events).values(event))


def event_json(event: dict[str, Any]) -> dict[str, Any]:
    """An event as viewers get it."""
    return {name: event[name] for name in ("run", "attempt", "step", "time", "kind", "name", "text")}


def alert_json(row: Any) -> dict[str, Any]:
    """An alert as viewers get it."""
    names = ("id", "run", "attempt", "rule", "severity", "title", "text", "count", "first_step", "last_step", "state")
    values = row._mapping  # an attribute would not do: every row has a method named count
    found = {name: values[name] for name in (*names, "created_at", "updated_at")}
    return found | {"layers": json.loads(values["layers"])}


async def change_run(connection: AsyncConnection, run: str, values: dict[str, Any]) -> None:
    """Change a run's name, tags or group."""
    columns = {"name": "name", "group": "group_name", "tags": "tags"}
    changed = {columns[name]: json.dumps(value) if name == "tags" else value for name, value in values.items()}
    if changed:
        await connection.execute(update(tables.runs).where(tables.runs.c.id == run).values(changed))
