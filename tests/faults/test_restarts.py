"""A cell run twice, a kernel killed, a checkpoint loaded: each life is an attempt of the run, none swallows another."""

from __future__ import annotations

from pathlib import Path

import pytest
from gradwatch import frames

from tests.processes import ServerProcess, clean_environment, python


@pytest.mark.timeout(120)
def test_each_life_is_an_attempt_that_begins_at_its_step(tmp_path: Path) -> None:
    script, checkpoint = Path(__file__).parent / "restarting_training.py", tmp_path / "checkpoint"
    environment = clean_environment(tmp_path, GRADWATCH_RUN="notebook")
    with ServerProcess(tmp_path) as server:
        for code in (-9, 0):
            with python(script, environment, tmp_path / "log", str(checkpoint)) as training:
                assert training.wait(60) == code, training.output
        path = f"/api/runs/{frames.run_id('restarts', 'notebook')}"
        found = server.await_json(path, lambda run: run["state"] == "finished")
        said = [(attempt["number"], attempt["start_step"]) for attempt in found["attempts"]]
        assert said == [(1, 0), (2, 0), (3, 40)]
        for attempt, steps in ((1, range(60)), (2, range(15)), (3, range(40, 70))):
            raw = f"{path}/series?names=loss&columns=0&attempt={attempt}"
            page = server.await_json(raw, lambda page, wanted=list(steps): page["step"] == wanted)  # type: ignore[misc]
            assert len(page["series"]["loss"]["value"]) == len(steps)
        restarts = [event["step"] for event in server.get(f"{path}/events")["events"] if event["name"] == "restart"]
        assert restarts == [0, 40]
    assert "Traceback" not in training.output
