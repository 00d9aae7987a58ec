"""However a training ends, and whatever its server does: in time, with its own exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradwatch import frames
from gradwatch.frames import Kind
from gradwatch.leftovers import leftovers

from tests.processes import ServerProcess, clean_environment

CODES = {
    "return": 0,
    "exception": 1,
    "sys_exit": 3,
    "os_exit": 7,
    "sigint": -signal.SIGINT,
    "sigterm": -signal.SIGTERM,
    "handler": 5,
    "sigkill": -signal.SIGKILL,
}
SIGNALS = {"sigint": signal.SIGINT, "sigterm": signal.SIGTERM, "handler": signal.SIGTERM, "sigkill": signal.SIGKILL}
ABRUPT = ("os_exit", "sigterm", "sigkill")  # Python runs nothing of its own at these
BOUND = 1.0  # seconds: what is younger may be lost at an abrupt end
ADDED = 2.0  # seconds that an exit may take longer
SLACK = 1.5  # seconds for nine processes on two busy cores


class Trainings:
    """The process that forks one training for each cell, and what it says of them."""

    def __init__(self, folder: Path) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "exiting.py")],
            env=clean_environment(folder / "unused"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said: list[dict[str, Any]] = []
        self._pids: list[int] = []

    def start(self, way: str, folder: Path, environment: dict[str, str]) -> int:
        """The process id of a training that is going to end in that way."""
        assert self._popen.stdin is not None
        folder.mkdir(parents=True)
        cell = {"way": way, "folder": str(folder), "environment": environment}
        self._popen.stdin.write(json.dumps(cell) + "\n")
        self._popen.stdin.flush()
        while not any("code" not in said and said["pid"] not in self._pids for said in self._said):
            self._hear()
        pid = next(said["pid"] for said in self._said if said["pid"] not in self._pids)
        self._pids.append(pid)
        return int(pid)

    def end_of(self, pid: int) -> tuple[int, float]:
        """Exit code, and the (monotonic) time of the end."""
        while not (found := [said for said in self._said if said["pid"] == pid and "code" in said]):
            self._hear()
        return found[0]["code"], found[0]["at"]

    def _hear(self) -> None:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line, "the process that forks has ended"
        self._said.append(json.loads(line))

    def close(self) -> None:
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self._popen.stdin.close()
        self._popen.wait(30)
        self._popen.stdout.close()


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    started = Trainings(tmp_path_factory.mktemp("trainings"))
    yield started
    started.close()


def spooled_steps(directory: Path) -> set[int]:
    found: set[int] = set()
    for left in leftovers(directory / "spool"):
        for frame in map(frames.decode, left.frames()):
            if frame.kind is Kind.STEPS:
                found |= set(np.frombuffer(frame.body[: 8 * frame.header["rows"]], "<i8").tolist())
            assert frame.kind is not Kind.DROPPED
        left.close(delivered=False)
    return found


def run_all(trainings: Trainings, folder: Path, **environment: str) -> dict[str, tuple[int, float, float]]:
    """Every way at once, each with a GRADWATCH_DIR of its own: (exit code, begin of its end, end)."""
    pids = {
        way: trainings.start(
            way, folder / way, {"GRADWATCH_DIR": str(folder / way), "GRADWATCH_RUN": way, **environment}
        )
        for way in CODES
    }
    alone = folder / "alone"  # a training that records nothing: how long the interpreter itself takes to end here
    pids["alone"] = trainings.start("return", alone, {"GRADWATCH_DIR": str(alone), "GRADWATCH_MODE": "disabled"})
    begun: dict[str, float] = {}
    for way, number in SIGNALS.items():
        until = time.monotonic() + 30
        while not (folder / way / "steps").exists() or (folder / way / "steps").stat().st_size < 16 * 80:
            assert time.monotonic() < until, (folder / way / "log").read_text()
            time.sleep(0.02)
        begun[way] = time.monotonic()
        os.kill(pids[way], number)
    ends = {way: trainings.end_of(pid) for way, pid in pids.items()}
    for way in set(pids) - set(SIGNALS):
        begun[way] = float((folder / way / "ended").read_text())
    return {way: (ends[way][0], begun[way], ends[way][1]) for way in pids}


def check(way: str, folder: Path, ended: dict[str, tuple[int, float, float]], found: set[int]) -> None:
    code, begun, at = ended[way]
    alone = ended["alone"][2] - ended["alone"][1]
    log = (folder / way / "log").read_text()
    assert code == CODES[way], (way, code, log)
    assert at - begun < alone + ADDED + SLACK, (way, at - begun, alone, log)
    assert log.count("Traceback") == (way in ("exception", "sigint")), log
    assert "client_hook/gradwatch/" not in log.replace("monitor.py", ""), log  # an interrupt may hit inside clip
    steps = np.fromfile(folder / way / "steps", [("step", "<i8"), ("at", "<f8")])
    due = steps["step"][steps["at"] < begun - BOUND] if way in ABRUPT else steps["step"]
    assert set(due.tolist()) <= found, (way, sorted(set(due.tolist()) - found), log)
    assert sorted(found) == list(range(len(found)))


@pytest.mark.parametrize("blackholed", [False, True])
def test_without_a_server_everything_is_in_the_spool(blackholed: bool, trainings: Trainings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        said = {"GRADWATCH_SERVER": f"http://127.0.0.1:{silent.getsockname()[1]}"} if blackholed else {}
        ended = run_all(trainings, tmp_path, **said)
    for way in CODES:
        check(way, tmp_path, ended, spooled_steps(tmp_path / way))


def test_with_a_server_everything_is_on_it_or_in_the_spool(trainings: Trainings, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "server") as server:
        ended, delivered = run_all(trainings, tmp_path, GRADWATCH_SERVER=server.url), list[str]()
        for way in CODES:
            run = frames.run_id("exits", way)
            on_server = set(server.raw_series(run, ["loss"])["step"])
            left = spooled_steps(tmp_path / way)
            check(way, tmp_path, ended, on_server | left)
            if left:  # what two seconds did not suffice for on a busy machine is said to wait
                assert way in ABRUPT or "not all is delivered yet" in (tmp_path / way / "log").read_text()
                continue
            delivered.append(way)
            state = server.get(f"/api/runs/{run}")["state"]
            assert state == ("failed" if way in ("exception", "sigint") else "finished"), (way, state)
        assert delivered
