"""A look into the SQLite file of a server, beside it: what is still to be done, and what lies where."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database in a GRADWATCH_DIR, for reading."""
    with closing(sqlite3.connect(f"file:{folder / 'gradwatch.db'}?mode=ro", uri=True, timeout=10)) as connection:
        yield connection


def await_settled(folder: Path, seconds: float) -> float:
    """Wait until everything committed is rolled up and sealed, too; gives the time.monotonic() at which it was seen."""
    until = time.monotonic() + seconds
    while True:
        with reading(folder) as connection:
            (left,) = connection.execute("SELECT count(*) FROM dirty").fetchone()
        now = time.monotonic()
        if not left:
            return now
        if now > until:
            raise SystemExit(f"{left} marks of the roll-up are left after {seconds:.0f} s")
        time.sleep(0.02)


def table_bytes(folder: Path) -> dict[str, int]:
    """Bytes on disk by table, its indexes included, the largest first."""
    with reading(folder) as connection:
        tables = dict(connection.execute("SELECT name, tbl_name FROM sqlite_master"))
        pages = connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name").fetchall()
    found: dict[str, int] = {}
    for name, size in pages:
        table = tables.get(name, name)
        found[table] = found.get(table, 0) + size
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def free_bytes(folder: Path) -> int:
    """Of the database file, where nothing lies any more and what comes next goes: the hot log was there, as a rule."""
    with reading(folder) as connection:
        free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size"))
    return int(free * size)


def file_bytes(folder: Path) -> int:
    """The database and its write-ahead log."""
    files = (folder / f"gradwatch.db{ending}" for ending in ("", "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
