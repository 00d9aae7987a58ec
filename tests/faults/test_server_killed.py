"""The server dies by SIGKILL, at random moments and at each boundary: nothing is missing, doubled or changed."""

from __future__ import annotations

import math
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.processes import Process, ServerProcess, clean_environment, python

HERE = Path(__file__).parent
KILLS = 20
TRAINING_SECONDS = 150.0  # at most; it is told to end after the last kill
BOUNDARIES = ("received", "before_commit", "after_commit", "before_rules")
NAN_STEP = 100


def start_training(directory: Path, seconds: float) -> Process:
    environment = clean_environment(directory)
    return python(
        HERE / "logged_training.py", environment, directory / "training.log",
        str(directory / "truth"), str(seconds), str(NAN_STEP),
    )  # fmt: skip


def check_against_the_trainers_log(server: ServerProcess, directory: Path) -> int:
    """Every step of the trainer's own log stands in the store once, bit for bit; gives their number."""
    truth = np.fromfile(directory / "truth", [("total_norm", "<f4"), ("loss", "<f4"), ("step", "<i8")])
    last = int(truth["step"][-1])
    runs = server.await_json(
        "/api/runs", lambda found: len(found["runs"]) == 1 and found["runs"][0]["state"] == "finished", 60
    )["runs"]
    assert runs[0]["last_step"] == last
    stored = server.raw_series(runs[0]["id"], ["total_norm", "loss"])
    assert stored["step"] == truth["step"].tolist() == list(range(last + 1))
    for name in ("total_norm", "loss"):
        theirs = np.array([math.nan if value is None else value for value in stored[name]], np.float32)
        np.testing.assert_array_equal(theirs, truth[name])
    return last + 1


def check_alerts_were_raised_once(server: ServerProcess) -> None:
    def judged(found: dict[str, list[dict[str, object]]]) -> bool:
        return any(alert["rule"] == "nonfinite" for alert in found["alerts"])

    alerts = server.await_json("/api/alerts", judged)["alerts"]
    # Anything raised twice would be raised by now: the rules have seen the run's last frame.
    found = [(a["rule"], a["first_step"], a["count"], a["layers"][0]) for a in alerts if a["rule"] == "nonfinite"]
    assert found == [("nonfinite", NAN_STEP, 1, "2.weight")]


@pytest.mark.timeout(240)
def test_at_twenty_random_moments(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    moments = random.Random(seed)
    with start_training(tmp_path, TRAINING_SECONDS) as training:
        for _ in range(KILLS):
            server = ServerProcess(tmp_path)
            # Until the hook has found the new server nothing streams, and a kill would test nothing.
            await_stream(server)
            time.sleep(moments.uniform(0, 0.4))
            server.kill()
        assert training.popen.poll() is None, "the training ended before the last kill"
        with ServerProcess(tmp_path) as server:
            await_stream(server)
            (tmp_path / "truth.stop").touch()
            assert training.wait(120) == 0, training.output
            assert check_against_the_trainers_log(server, tmp_path) > 1000
            check_alerts_were_raised_once(server)


def await_stream(server: ServerProcess) -> None:
    """Wait until steps arrive."""
    found = server.await_json("/api/runs", lambda found: found["runs"])["runs"]
    before = found[0]["last_step"] or 0
    server.await_json("/api/runs", lambda found: (found["runs"][0]["last_step"] or 0) > before)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_at_each_boundary(boundary: str, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "killing_server.py")]
    with ServerProcess(tmp_path, boundary, "3", command=command) as doomed, start_training(tmp_path, 60.0) as training:
        assert doomed.wait(30) == -9, doomed.output
        with ServerProcess(tmp_path) as server:
            await_stream(server)
            (tmp_path / "truth.stop").touch()
            assert training.wait(60) == 0, training.output
            check_against_the_trainers_log(server, tmp_path)
            check_alerts_were_raised_once(server)


@pytest.mark.timeout(120)
def test_after_the_spool_and_before_the_server(tmp_path: Path) -> None:
    """The training ends while no server lives; a later ``gradwatch serve`` shows all of it."""
    with start_training(tmp_path, 3.0) as training:
        server = ServerProcess(tmp_path)
        time.sleep(1.0)
        server.kill()
        assert training.wait(60) == 0, training.output
    assert "waits in" in training.output
    with ServerProcess(tmp_path) as later:
        check_against_the_trainers_log(later, tmp_path)
        check_alerts_were_raised_once(later)
    assert list((tmp_path / "spool").iterdir()) == []
