"""Clients die by SIGKILL at random moments; what they had spooled is delivered by the next server's start."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import OpenSession
from tests.faults.sessions import SOAK, session, side_by_side
from tests.processes import ServerProcess

KILLS = 10


@pytest.mark.timeout(240 + 30 * SOAK)
def test_at_random_moments(open_session: OpenSession) -> None:
    side_by_side(partial(run_cell, open_session) for _ in range(SOAK))


def run_cell(open_session: OpenSession) -> None:
    """KILLS clients, each a run of its own: half of them stream to a server, the others have none."""
    with open_session("") as opened:
        names = [f"run{number}" for number in range(KILLS)]
        with opened.server():
            for name in names[::2]:
                client = opened.client(name, pause=0.003)
                time.sleep(opened.random.uniform(0, 0.5))
                client.kill()
        for name in names[1::2]:
            client = opened.client(name, pause=0.003)
            time.sleep(opened.random.uniform(0, 0.5))
            client.kill()
        produced = 0
        with opened.server() as server:
            for name in names:
                truth = opened.truth(name)
                if not len(truth.steps):
                    continue  # it died before its first step
                newest = int(truth.steps["step"][-1])
                server.await_json("/api/runs?limit=100", partial(_shows, truth.run, newest), 60)
                produced += truth.check(server, whole=False)
                truth.check_alerts(server)
            server.await_json("/healthz", lambda _: not any((opened.directory / "spool").rglob("*.gw")))
        assert produced > 1000
        opened.check_database()


def test_a_server_that_comes_after_the_clients_end(tmp_path: Path) -> None:
    """The client ends while no server lives; ``gradwatch serve``, as a person starts it, then shows all of it."""
    with session(tmp_path, "", "no server") as opened:
        with opened.client() as client:
            time.sleep(0.5)
            (tmp_path / "run.stop").touch()
            assert client.wait(30) == 3, client.output  # nothing was delivered
        newest = int(opened.truth().steps["step"][-1])
        with ServerProcess(tmp_path) as later:
            later.await_json("/api/runs", partial(_shows, opened.truth().run, newest))
            opened.truth().check(later)
            opened.truth().check_alerts(later)
            later.await_json("/api/runs", lambda _: not any((tmp_path / "spool").iterdir()))
        opened.check_database()


def _shows(run: str, step: int, found: dict[str, list[dict[str, Any]]]) -> bool:
    return any(one["id"] == run and (one["last_step"] or -1) >= step for one in found["runs"])
