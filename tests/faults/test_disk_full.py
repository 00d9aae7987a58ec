"""The server's disk is full: nothing unsaved is acked, what there is can be read, and it goes on when there is room.

The disk is a small file system in memory. Where the tests may not mount one, the server gets a limit on the size of its
files instead, which fails its writes in the same places.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.forked import ForkedServer
from tests.faults.sessions import Session, session
from tests.postgresql import PostgreSQL

SIZE = 24 << 20  # bytes of the disk: the database's log alone may take a few
LEFT = 64 << 10  # bytes left free when the disk is filled


class Disk:
    """A disk that can be filled and emptied."""

    def __init__(self, folder: Path, *, real: bool) -> None:
        self.folder, self.real = folder, real
        self._ballast = folder / "ballast"

    def fill(self, server: ForkedServer) -> None:
        if not self.real:
            largest = max(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (largest + LEFT, resource.RLIM_INFINITY))
            return
        free = shutil.disk_usage(self.folder).free
        # The server takes from it meanwhile; then the ballast is what still fits.
        with self._ballast.open("wb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, free - LEFT))

    def empty(self, server: ForkedServer) -> None:
        if not self.real:
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            return
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
    real = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    sys.stdout.write(f"the disk is {'a file system of its own' if real else 'a limit on the size of files'}\n")
    try:
        yield Disk(folder, real=real)
    finally:
        if real:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.timeout(240)
def test_sqlite(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        file = disk.folder / "gradwatch.db"
        with session(tmp_path / "home", str(file), "disk full") as opened:
            fill_and_empty(opened, disk)


@pytest.mark.timeout(240)
def test_postgresql(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """Its tables lie on the small disk; its log of writes does not, for where that is full PostgreSQL ends itself."""
    with small_disk(tmp_path / "disk") as disk:
        place = disk.folder / "tables"
        place.mkdir()
        postgresql.own(place)
        database = postgresql.new_database(place)
        try:
            with session(tmp_path / "home", database, "disk full") as opened:
                fill_and_empty(opened, disk)
        finally:
            postgresql.drop_database(database)


def fill_and_empty(session: Session, disk: Disk) -> None:
    with session.server() as server, session.client() as client:
        run = session.truth().run
        server.await_json("/api/runs", lambda found: found["runs"] and (found["runs"][0]["last_step"] or 0) > 300)
        disk.fill(server)
        until = time.monotonic() + 40
        while server.get("/healthz")["status"] != "full":
            assert time.monotonic() < until, "the disk never became full"
            time.sleep(0.05)
        time.sleep(2)
        # What was stored can be read, all of it, while nothing can be written.
        stored = server.raw_series(run, ["total_norm"])
        assert stored["step"] == list(range(len(stored["step"]))) and len(stored["step"]) > 300
        assert server.get(f"/api/runs/{run}/layers?columns=100", headers={"Accept": "application/json"})["columns"]
        assert server.is_alive() and client.is_alive()
        assert session.truth().steps["step"][-1] > stored["step"][-1]
        disk.empty(server)
        begun = time.monotonic()
        newest = int(session.truth().steps["step"][-1])
        server.await_json(f"/api/runs/{run}", lambda found: found["last_step"] >= newest, 30)
        sys.stdout.write(f"all is there {time.monotonic() - begun:.1f} s after there was room\n")
        assert server.get("/healthz")["status"] == "ready"
        session.stop(client)
        session.truth().check(server)
        session.truth().check_alerts(server)
        assert "cannot store now" in client.output
        assert "Traceback" not in server.output, server.output[-3000:]
