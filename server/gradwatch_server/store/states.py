"""The state of a run, worked out from the writers of its newest attempt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from . import tables
from .registry import RunState, WriterState


def combine(writers: Sequence[Any]) -> tuple[str, str | None, float | None]:
    """State, reason and end of an attempt from its writers' rows (state, reason, ended_at, rank)."""
    by_state = {state: [w for w in writers if w.state == state] for state in ("failed", "running", "lost")}
    # One failed rank fails the attempt: the others only hang until somebody ends them.
    for state in ("failed", "running", "lost"):
        if by_state[state]:
            worst = min(by_state[state], key=lambda w: w.rank)
            reason = worst.reason if len(writers) == 1 or not worst.reason else f"rank {worst.rank}: {worst.reason}"
            return state, reason, None if state == "running" else worst.ended_at
    if not writers:
        return "running", None, None
    ends = [w.ended_at for w in writers if w.ended_at is not None]
    return "finished", next((w.reason for w in writers if w.reason), None), max(ends, default=None)


async def write_states(
    connection: AsyncConnection, writers: Collection[WriterState], runs: Collection[RunState], now: float
) -> None:
    """Writers and runs as they now are; each kind by one statement, because hundreds may be in a batch."""
    names = ("state", "reason", "first_step", "last_step", "steps_to", "steps_span", "scalars_span")
    of_writers = [
        {"its_id": w.id, "seen_at": w.seen_at, "ended_at": w.ended_at, **{name: getattr(w, name) for name in names}}
        for w in writers
    ]
    of_runs = [{"its_id": run.id, "updated_at": now, "last_step": run.last_step} for run in runs]
    for table, rows in ((tables.writers, of_writers), (tables.runs, of_runs)):
        if rows:
            await connection.execute(update(table).where(table.c.id == bindparam("its_id")), rows)


async def refresh_run(connection: AsyncConnection, run: str, now: float) -> bool:
    """Write the run's state anew; True when it changed."""
    runs, writers = tables.runs, tables.writers
    before = (
        await connection.execute(select(runs.c.state, runs.c.reason, runs.c.attempt).where(runs.c.id == run))
    ).one()
    mine = (writers.c.run == run) & (writers.c.attempt == before.attempt)
    columns = (writers.c.state, writers.c.reason, writers.c.ended_at, writers.c.rank)
    rows = (await connection.execute(select(*columns).where(mine).order_by(writers.c.rank))).all()
    state, reason, ended_at = combine(rows)
    values = {"state": state, "reason": reason, "ended_at": ended_at, "updated_at": now}
    await connection.execute(update(runs).where(runs.c.id == run).values(values))
    return (state, reason) != (before.state, before.reason)
