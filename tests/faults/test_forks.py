"""Children of a training, however they are made: none hangs, none writes in its parent's name, the parent goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import ServerProcess, clean_environment, python

FORKS = 8
STEPS = 1 + 3 * 2 * 4 + 2 * FORKS + 1


@pytest.mark.timeout(240)
def test_workers_and_forks_leave_the_parents_stream_alone(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        environment = clean_environment(tmp_path, GRADWATCH_RUN="parent")
        script = Path(__file__).parent / "forking_training.py"
        with python(script, environment, tmp_path / "log", str(FORKS)) as training:
            assert training.wait(200) == 0, training.output
        assert f"{STEPS} steps" in training.output and "Traceback" not in training.output
        runs = {run["name"]: run for run in server.get("/api/runs")["runs"] if run["project"] == "forks"}
        assert list(runs) == ["parent"]
        found = server.get(f"/api/runs/{runs['parent']['id']}")
        assert found["state"] == "finished" and len(found["attempts"]) == 1, found
        assert server.raw_series(found["id"], ["loss"])["step"] == list(range(STEPS))
        events = server.get(f"/api/runs/{found['id']}/events")["events"]
        assert not [event for event in events if event["name"] in ("child", "dropped", "fallback")], events
