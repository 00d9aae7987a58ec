from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from gradwatch_server.store import migrations, tables
from gradwatch_server.store.engine import open_engines
from gradwatch_server.store.migrations.upgrade import SchemaTooNew, upgrade
from sqlalchemy import Connection, MetaData, Table

from ..stream import Writer
from .opened import keep, opened, rows


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


KEPT = ("runs", "attempts", "writers", "frames", "layer_tables", "run_layers", "user_series", "rule_states", "events")


def fill_the_first_schema(connection: Connection, said: dict[str, list[dict[str, object]]]) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__ or "").parent))
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")
    known = MetaData()
    known.reflect(connection)
    for name, some in said.items():
        table = Table(name, known)
        if some:
            connection.execute(table.insert(), [{c.name: row[c.name] for c in table.columns} for row in some])


def test_what_the_first_schema_holds_is_sealed_and_read_as_before(database: str, tmp_path: Path) -> None:
    steps = np.arange(1000)
    writer = Writer()
    data = [
        writer.opening(),
        *(writer.steps(steps[at : at + 50], loss=steps[at : at + 50]) for at in range(0, 1000, 50)),
    ]
    data += [writer.scalars([("accuracy", 7, 0.5), ("accuracy", 999, 0.75)]), writer.finish()]

    async def scenario() -> None:
        said: dict[str, list[dict[str, object]]] = {}
        async with opened(f"sqlite+aiosqlite:///{tmp_path / 'made.db'}") as made:
            # As an older server would have stored them, before anything is sealed.
            made.sealer.waits_for_rules = True
            assert set(await keep(made, *data)) == {"ok"}
            for name in KEPT:
                table = tables.metadata.tables[name]
                names = [column.name for column in table.columns]
                said[name] = [dict(zip(names, row, strict=True)) for row in await rows(made, table)]
        number = said["writers"][0]["id"]
        key = {"writer": number, "level": 64}
        said["rollups"] = [{**key, "part": 0, "bucket": bucket, "data": b"old"} for bucket in range(12)]
        said["rollups"] += [{**key, "level": 256, "part": 0, "bucket": 0, "data": b"old"}]
        said["dirty"] = [{**key, "bucket": bucket, "version": 3} for bucket in range(11, 16)]
        engines = open_engines(database)
        async with engines.write.begin() as connection:
            await connection.run_sync(fill_the_first_schema, said)
        await engines.dispose()
        async with opened(database) as store:
            for drained in (False, True):
                if drained:
                    await store.sealer.drain()
                    assert {row[2] for row in await rows(store, tables.frames)} == {1, 2, 9}
                    assert await rows(store, tables.tiles)
                view = await store.queries.view(writer.run)
                page = await store.queries.raw(view, 0, 999, ["loss", "accuracy"], 2000)
                assert page.steps.tolist() == steps.tolist() == page.values[:, 0].tolist()
                assert page.values[[7, 999], 1].tolist() == [0.5, 0.75]
                found = await store.queries.reduce(view, 0, 999, 256, names=["loss"])
                assert found.scalars.total.sum() == steps.sum()
            assert set(await keep(store, *data)) == {"ok"}  # all is known still

    asyncio.run(scenario())
