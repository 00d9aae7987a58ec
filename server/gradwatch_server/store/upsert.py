"""INSERT that gives way to a row that is already there, for both databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


def _insert(connection: AsyncConnection, table: Table) -> Any:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


async def insert_new(connection: AsyncConnection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert the rows whose keys are free; leave the others as they are."""
    if rows:
        await connection.execute(_insert(connection, table).on_conflict_do_nothing(), list(rows))


async def replace(connection: AsyncConnection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, writing over those with the same primary key."""
    if rows:
        statement = _insert(connection, table)
        changed = {c.name: statement.excluded[c.name] for c in table.columns if not c.primary_key}
        statement = statement.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=changed)
        await connection.execute(statement, list(rows))


async def mark_dirty(connection: AsyncConnection, table: Table, keys: Sequence[tuple[int, int, int]]) -> None:
    """Mark (writer, level, bucket) as changed; every mark raises the version."""
    if keys:
        statement = _insert(connection, table)
        statement = statement.on_conflict_do_update(
            index_elements=list(table.primary_key.columns), set_={"version": table.c.version + 1}
        )
        rows = [{"writer": w, "level": level, "bucket": b, "version": 1} for w, level, b in sorted(set(keys))]
        await connection.execute(statement, rows)
