"""A C call that holds the interpreter for longer than a server waits: reconnected at once, nothing lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from gradwatch import frames

from tests.processes import ServerProcess, clean_environment, python

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.mark.timeout(90)
def test_the_stream_goes_on_within_two_seconds_of_the_release(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, command=[sys.executable, str(HERE / "impatient_server.py")]) as server:
        arguments = (str(tmp_path / "spool"), server.url, "6")
        environment = clean_environment(tmp_path, PYTHONPATH=str(ROOT))  # where the tests' own writer lies
        with python(HERE / "holding_client.py", environment, tmp_path / "log", *arguments) as client:
            assert client.wait(60) == 0, client.output
        seconds, steps = client.output.split()[-2:]
        assert float(seconds) < 2 + 1, client.output  # and a second for a busy machine
        found = server.get(f"/api/runs/{frames.run_id('p', 'holding')}")
        assert found["state"] == "finished" and len(found["attempts"]) == 1
        assert server.raw_series(found["id"], ["loss"])["step"] == list(range(int(steps)))
        assert not [event for event in server.get(f"/api/runs/{found['id']}/events")["events"]]
