from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from gradwatch_server.backup import CannotBackUp, back_up
from gradwatch_server.cli import backup

from .served import Served
from .store.opened import opened
from .stream import Writer


def test_a_copy_made_while_frames_come_in_is_whole_and_holds_what_was_acked_before(tmp_path: Path) -> None:
    writer, copies = Writer(), [tmp_path / f"copy{number}.db" for number in range(3)]
    through: list[int] = []
    with Served(tmp_path) as server, server.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps(np.arange(100)))
        stop = threading.Event()

        def stream() -> None:
            for start in range(100, 100_000, 100):
                if stop.is_set():
                    return
                socket.store(writer, writer.steps(np.arange(start, start + 100)))
                through.append(start + 99)

        streaming = threading.Thread(target=stream)
        streaming.start()
        acked = []
        for number, copy in enumerate(copies):
            until = time.monotonic() + 20
            while len(through) < 3 * (number + 1) and time.monotonic() < until:
                time.sleep(0.01)
            acked.append(through[-1])
            back_up(server.settings.database_url, copy)
        stop.set()
        streaming.join()
    assert len(through) >= 9
    for copy, least in zip(copies, acked, strict=True):
        asyncio.run(check(copy, writer.run, least))


async def check(copy: Path, run: str, least: int) -> None:
    async with opened(f"sqlite+aiosqlite:///{copy}") as store:
        async with store.engines.read.connect() as connection:
            assert (await connection.exec_driver_sql("pragma integrity_check")).scalar() == "ok"
        view = await store.queries.view(run)
        assert view.last_step is not None and view.last_step >= least
        page = await store.queries.raw(view, 0, view.last_step, ["loss"], 10**6)
        assert page.steps.tolist() == list(range(view.last_step + 1))


def test_what_cannot_be_copied_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    for url, sentence in (
        ("postgresql+asyncpg://u@h/d", "pg_dump"),
        (f"sqlite+aiosqlite:///{tmp_path / 'none.db'}", "there is no database"),
    ):
        with pytest.raises(CannotBackUp, match=sentence):
            back_up(url, tmp_path / "copy.db")
    (tmp_path / "no.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(CannotBackUp, match="not a database"):
        back_up(f"sqlite+aiosqlite:///{tmp_path / 'no.db'}", tmp_path / "copy.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["no.db"]


def test_the_command_says_where_the_copy_is_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADWATCH_DIR", str(tmp_path))
    with Served(tmp_path):
        first = CliRunner().invoke(backup, [str(tmp_path / "copy.db")])
        assert first.exit_code == 0 and "copied to" in first.output, first.output
        again = CliRunner().invoke(backup, [str(tmp_path / "copy.db")])
        assert again.exit_code == 1 and "is there already" in again.output
