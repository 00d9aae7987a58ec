from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from gradwatch_server.store import tables
from gradwatch_server.store.engine import open_engines
from gradwatch_server.store.migrations.upgrade import SchemaTooNew, upgrade
from sqlalchemy import Connection

from .opened import opened


def test_the_migrations_make_exactly_the_tables(database: str) -> None:
    def differences(connection: Connection) -> list[object]:
        found: list[object] = compare_metadata(MigrationContext.configure(connection), tables.metadata)
        return found

    async def scenario() -> list[object]:
        async with opened(database) as store, store.engines.read.connect() as connection:
            return await connection.run_sync(differences)

    assert asyncio.run(scenario()) == []


def test_an_older_file_is_copied_before_it_is_changed_and_a_current_one_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with closing(sqlite3.connect(file)) as old:
        old.execute("create table precious (a)")
        old.execute("insert into precious values (42)")
        old.commit()

    async def open_it() -> None:
        async with opened(f"sqlite+aiosqlite:///{file}"):
            pass

    asyncio.run(open_it())
    copies = list(tmp_path.glob("x.db.before-*.backup"))
    assert len(copies) == 1
    with closing(sqlite3.connect(copies[0])) as copy:
        assert copy.execute("select a from precious").fetchall() == [(42,)]
    copies[0].unlink()
    asyncio.run(open_it())
    assert not list(tmp_path.glob("*.backup"))


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with closing(sqlite3.connect(file)) as newer:
        newer.execute("create table alembic_version (version_num varchar(32))")
        newer.execute("insert into alembic_version values ('9999')")
        newer.commit()

    async def scenario() -> None:
        engines = open_engines(f"sqlite+aiosqlite:///{file}")
        try:
            with pytest.raises(SchemaTooNew, match="9999"):
                await upgrade(engines.write)
        finally:
            await engines.dispose()

    asyncio.run(scenario())
