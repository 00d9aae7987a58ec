"""Commands to trainings of several real processes: all ranks do them at one step, or none does, and nobody hangs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import Process, ServerProcess, clean_environment

SCRIPT = Path(__file__).with_name("commanded_ranks.py")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


def launched(server: ServerProcess, folder: Path, ranks: int, watching: str) -> Process:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = clean_environment(folder, GRADWATCH_SERVER=server.url, GRADWATCH_RUN=folder.name, OMP_NUM_THREADS="1")
    return Process([*command, str(SCRIPT), str(folder), watching], environment, folder / "ranks.log")


def training(server: ServerProcess, run: str) -> str:
    """The id of the run, once it has made some steps."""
    listed = server.await_json(
        f"/api/runs?q={run}", lambda found: found["runs"] and (found["runs"][0]["last_step"] or 0) > 20
    )
    return str(listed["runs"][0]["id"])


def ask(server: ServerProcess, run: str, command: str, **said: Any) -> None:
    answer = httpx.post(f"{server.url}/api/runs/{run}/control", json={"command": command, **said})
    assert answer.status_code == 202, answer.text


def outcome(server: ServerProcess, run: str, count: int) -> list[dict[str, Any]]:
    """What the hook has said of commands, once that are ``count`` events."""
    path = f"/api/runs/{run}/events?kind=control"
    found = server.await_json(path, lambda found: len([e for e in found["events"] if e["name"] == "control"]) >= count)
    return [event for event in found["events"] if event["name"] == "control"]


@pytest.mark.parametrize("ranks", [2, 4])
def test_all_ranks_obey_at_one_step_and_their_weights_stay_the_same(
    server: ServerProcess, tmp_path: Path, ranks: int
) -> None:
    with launched(server, tmp_path, ranks, "all") as processes:
        run = training(server, tmp_path.name)
        about = server.get(f"/api/runs/{run}")
        assert about["commands"] == ["set_threshold", "stop", "checkpoint"]
        ask(server, run, "set_threshold", value=0.25)
        ask(server, run, "checkpoint")
        outcome(server, run, 2)
        ask(server, run, "stop")
        assert processes.wait(60) == 0, processes.output[-3000:]
    said = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(ranks)]
    first = said[0]
    assert first["stopped"] and first["thresholds"] == [0.25] and len(first["saved"]) == 1
    for other in said[1:]:
        kept = ("changes", "thresholds", "saved", "weights", "steps", "stopped")
        assert [other[name] for name in kept] == [first[name] for name in kept]
    # The threshold is what parts the weights: with 0.001 each step moves less than a tenth of what it does with 0.25.
    assert len(set(first["weights"])) == first["steps"]
    (step, weights), (changed,) = first["saved"][0], first["changes"]
    assert weights == first["weights"][step - 1]
    assert max(one["slowest"] for one in said) < 3
    told = outcome(server, run, 3)
    assert [event["step"] for event in told] == [changed, step, first["steps"] - 1]
    together = f", on all {ranks} ranks; asked for by 127.0.0.1"
    assert told[0]["text"] == f"set_threshold: from 0.001 to 0.25{together}"
    assert all(event["text"].endswith(together) for event in told)
    series = server.raw_series(run, ["threshold"])
    assert [s for s, t in zip(series["step"], series["threshold"], strict=True) if t == 0.25][0] == changed
    ended = server.await_json(f"/api/runs/{run}", lambda found: found["state"] == "finished")
    assert ended["reason"] == "stopped as asked"


def test_a_rank_that_watches_alone_says_so_and_nobody_hangs(server: ServerProcess, tmp_path: Path) -> None:
    with launched(server, tmp_path, 2, "first") as processes:
        run = training(server, tmp_path.name)
        ask(server, run, "set_threshold", value=0.25)
        (told,) = outcome(server, run, 1)
        assert told["text"].startswith("set_threshold was not done: rank 1 does not listen: watch with control=True")
        step = server.get(f"/api/runs/{run}")["last_step"]
        server.await_json(f"/api/runs/{run}", lambda found: found["last_step"] > step)
        (tmp_path / "enough").touch()
        assert processes.wait(60) == 0, processes.output[-3000:]
    said = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert said[0]["changes"] == [] and said[0]["weights"] == said[1]["weights"]
    assert said[0]["slowest"] < 3
