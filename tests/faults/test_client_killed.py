"""Clients die by SIGKILL at random moments; what they had spooled is delivered by the next server's start."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from tests.faults.conftest import OpenSession
from tests.faults.sessions import SOAK, side_by_side

KILLS = 10


@pytest.mark.timeout(90 + 30 * SOAK)
def test_at_random_moments(open_session: OpenSession) -> None:
    side_by_side(partial(run_cell, open_session) for _ in range(SOAK))


def run_cell(open_session: OpenSession) -> None:
    """KILLS clients, each a run of its own: half of them stream to a server, the others have none."""
    with open_session("") as session:
        names = [f"run{number}" for number in range(KILLS)]
        with session.server():
            for name in names[::2]:
                client = session.client(name, pause=0.003)
                time.sleep(session.random.uniform(0, 0.5))
                client.kill()
        for name in names[1::2]:
            client = session.client(name, pause=0.003)
            time.sleep(session.random.uniform(0, 0.5))
            client.kill()
        produced = 0
        with session.server() as server:
            for name in names:
                truth = session.truth(name)
                if not len(truth.steps):
                    continue  # it died before its first step
                newest = int(truth.steps["step"][-1])
                server.await_json("/api/runs?limit=100", partial(_shows, truth.run, newest), 60)
                produced += truth.check(server, whole=False)
                truth.check_alerts(server)
            server.await_json("/healthz", lambda _: not any((session.directory / "spool").rglob("*.gw")))
        assert produced > 1000
        session.check_database()


def _shows(run: str, step: int, found: dict[str, list[dict[str, Any]]]) -> bool:
    return any(one["id"] == run and (one["last_step"] or -1) >= step for one in found["runs"])
