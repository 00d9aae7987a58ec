"""Brings a database to the newest schema; an existing SQLite file is copied first."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy.ext.asyncio import AsyncEngine


class SchemaTooNew(RuntimeError):
    """The database was written by a newer gradwatch."""


async def upgrade(engine: AsyncEngine) -> None:
    """Upgrade the database behind ``engine``. Raises SchemaTooNew when its revision is unknown here."""
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    current = MigrationContext.configure(connection).get_current_revision()
    if current == head:
        return
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        raise SchemaTooNew(f"the database has schema {current}, unknown to this version: upgrade gradwatch")
    file = connection.engine.url.database
    if connection.dialect.name == "sqlite" and file and inspect(connection).get_table_names():
        _back_up(Path(file), current or "none")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _back_up(file: Path, revision: str) -> None:
    target = file.with_name(f"{file.name}.before-{revision}.backup")
    # The backup API reads a consistent state, WAL included, while our own (still empty) transaction is open.
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
