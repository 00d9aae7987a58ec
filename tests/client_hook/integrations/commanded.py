"""Commands to a training under way, by a real server."""

from __future__ import annotations

import time
from typing import Any

import httpx
from gradwatch.monitor import Monitor

from tests.server.served import Served


def command(server: Served, monitor: Monitor | None, **said: Any) -> None:
    """Ask the only run of ``server`` for something; returns once its hook has heard of it."""
    assert monitor is not None and monitor._writer is not None
    sink: Any = monitor._writer.sink
    (run,) = server.wait("/api/runs", lambda found: found["runs"])["runs"]
    until = time.monotonic() + 10
    while httpx.post(f"{server.url}/api/runs/{run['id']}/control", json=said).status_code != 202:
        assert time.monotonic() < until  # its hello is on the way
        time.sleep(0.02)
    while not sink._sender.delivery._commands:
        assert time.monotonic() < until
        time.sleep(0.01)


def ended(server: Served) -> tuple[str, list[float]]:
    """Why the only run ended, and its threshold at every step."""
    (run,) = server.wait("/api/runs", lambda found: found["runs"][0]["state"] == "finished")["runs"]
    series = server.get(f"/api/runs/{run['id']}/series?names=threshold&columns=0")
    return run["reason"], series["series"]["threshold"]["value"]
