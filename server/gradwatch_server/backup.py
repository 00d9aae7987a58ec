"""``gradwatch backup``: a copy of the SQLite file as it is at one moment, while the server goes on writing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

_PAGES: Final = 4096  # copied between two reports


class CannotBackUp(Exception):
    """No copy was made; the message says what to do."""


def back_up(database_url: str, target: Path, progress: Callable[[int, int], None] = lambda done, all: None) -> None:
    """Copy the database to ``target``, which must not exist; ``progress`` hears pages done and in all.

    Raises CannotBackUp. A copy that did not come to its end is taken away.
    """
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        raise CannotBackUp("PostgreSQL has its own: pg_dump --format=custom")
    source = Path(url.database or "")
    if not source.is_file():
        raise CannotBackUp(
            f"there is no database {source}: name the folder by GRADWATCH_DIR, or the file by --database"
        )
    if target.exists():
        raise CannotBackUp(f"{target} is there already: name another file")
    part = target.with_name(target.name + ".part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
        # One read transaction over the whole copy: SQLite would begin anew with every commit of the server's else.
        with closing(sqlite3.connect(source)) as reading, closing(sqlite3.connect(part)) as copy:
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
            reading.backup(copy, pages=_PAGES, progress=lambda status, left, all: progress(all - left, all))
        part.rename(target)
    except (OSError, sqlite3.Error) as error:
        raise CannotBackUp(f"the copy failed: {error}") from None
    finally:
        part.unlink(missing_ok=True)
