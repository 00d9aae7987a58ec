"""A real training under faults: it ends as if nothing had been, its losses are the same bits, and all is stored."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.faults.logged_training import NAN_STEP
from tests.faults.sessions import session
from tests.network import Network
from tests.processes import Asking, Process, clean_environment, python

HERE = Path(__file__).parent
STEPS = 100_000  # at most; it is told to end after the last fault


def start_training(directory: Path, steps: int, *more: str, **said: str) -> Process:
    environment = clean_environment(directory, **said)
    log = directory / ("plain" if more else "truth")
    return python(HERE / "logged_training.py", environment, Path(f"{log}.log"), str(log), str(steps), *more)


def logged(path: Path) -> NDArray[Any]:
    return np.fromfile(path, [("total_norm", "<f4"), ("loss", "<f4"), ("step", "<i8")])


def check_against_the_trainers_log(server: Asking, directory: Path) -> int:
    """Every step of the trainer's own log stands in the store once, bit for bit; gives their number."""
    truth = logged(directory / "truth")
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


def check_alerts_were_raised_once(server: Asking) -> None:
    def judged(found: dict[str, list[dict[str, object]]]) -> bool:
        return any(alert["rule"] == "nonfinite" for alert in found["alerts"])

    alerts = server.await_json("/api/alerts", judged)["alerts"]
    # Anything raised twice would be raised by now: the rules have seen the run's last frame.
    found = [(a["rule"], a["first_step"], a["count"], a["layers"][0]) for a in alerts if a["rule"] == "nonfinite"]
    assert found == [("nonfinite", NAN_STEP, 1, "2.weight")]


@pytest.mark.timeout(240)
def test_losses_are_the_same_bits_whatever_happens_to_the_server(tmp_path: Path) -> None:
    """kill -9, a network that swallows and one that cuts, against the same training without gradwatch."""
    with session(tmp_path, "", "training") as opened:
        server = opened.server()
        with (
            Network(("127.0.0.1", int(server.url.rpartition(":")[2]))) as network,
            start_training(tmp_path, STEPS, GRADWATCH_SERVER=network.url) as training,
        ):
            for fault in ("kill", "hold", "cut", "kill"):
                server.await_json("/api/runs", lambda found: found["runs"] and (found["runs"][0]["last_step"] or 0) > 0)
                time.sleep(opened.random.uniform(0.2, 0.6))
                if fault == "kill":
                    server.kill()
                    server = opened.server()
                    network.target = ("127.0.0.1", int(server.url.rpartition(":")[2]))
                elif fault == "hold":
                    network.mode = "hold"
                    time.sleep(1)
                    network.heal()
                else:
                    network.cut_after(opened.random.randint(1, 3000))
            with server:
                newest = int(logged(tmp_path / "truth")["step"][-1])
                server.await_json("/api/runs", lambda found: (found["runs"][0]["last_step"] or 0) >= newest)
                (tmp_path / "truth.stop").touch()
                assert training.wait(60) == 0, training.output
                assert "Traceback" not in training.output
                steps = check_against_the_trainers_log(server, tmp_path)
                check_alerts_were_raised_once(server)
        opened.check_database()
    with start_training(tmp_path, steps, "plain") as plain:
        assert plain.wait(60) == 0, plain.output
    ours, theirs = logged(tmp_path / "truth"), logged(tmp_path / "plain")
    assert ours.tobytes() == theirs.tobytes() or _same_but_for_the_nan(ours, theirs)
    sys.stdout.write(f"{steps} steps, the same bits with and without\n")


def _same_but_for_the_nan(ours: NDArray[Any], theirs: NDArray[Any]) -> bool:
    """A NaN's payload is nobody's promise; every other bit must be the same."""
    other = ours["step"] != NAN_STEP
    return ours[other].tobytes() == theirs[other].tobytes() and bool(np.isnan(ours["total_norm"][~other]).all())
