"""``gradwatch.watch``: what it says when an argument is wrong, what it tells of a run, and watching again."""

from __future__ import annotations

import gc
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gradwatch
import pytest
import torch
from gradwatch import frames, registry
from gradwatch.frames import Kind
from gradwatch.spool import leftovers
from gradwatch.watching import storable_config
from torch import nn


def spooled(directory: Path) -> list[list[frames.Frame]]:
    """The frames of every ended writer in ``directory``."""
    runs = []
    for left in leftovers(directory / "spool"):
        runs.append([frames.decode(data) for data in left.frames()])
        left.close(delivered=False)
    return runs


@pytest.mark.parametrize(
    ("arguments", "error", "advice"),
    [
        ({"clip": "1.0"}, TypeError, "a number, a strategy such as"),
        ({"clip": True}, TypeError, "a number"),
        ({"clip": 0.0}, ValueError, "clip=None"),
        ({"clip": 1.0, "nonfinite": "ignore"}, ValueError, '"record", "skip" or "raise"'),
        ({"clip": 1.0, "mode": "on"}, ValueError, "online, offline or disabled"),
        ({"clip": 1.0, "server": "localhost:7531"}, ValueError, "http://host:7531"),
        ({"clip": 1.0, "start_step": -1}, ValueError, "start_step must be a whole number"),
        ({"clip": 1.0, "name": "x" * 2000}, ValueError, "at most 1024"),
        ({"clip": 1.0, "optimizer": "adam"}, TypeError, "a torch optimizer"),
    ],
)
def test_wrong_arguments_say_what_to_write(arguments: Any, error: type[Exception], advice: str) -> None:
    with pytest.raises(error, match=advice):
        gradwatch.watch(nn.Linear(1, 1), **arguments)


def test_the_model_must_be_a_module() -> None:
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        gradwatch.watch([nn.Linear(1, 1)], clip=1.0)  # type: ignore[arg-type]


def test_the_promised_arguments_are_all_there() -> None:
    names = list(inspect.signature(gradwatch.watch).parameters)
    promised = "model optimizer clip nonfinite project name group tags config total_steps start_step server mode"
    assert names == promised.split()
    assert set(gradwatch.__all__) == set(dir(gradwatch))


def test_a_run_tells_who_it_is(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWATCH_RUN", "my run")
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = {"lr": 0.1, "api_token": "hunter2", "nested": {"password": "hunter2", "depth": float("nan")}}
    with gradwatch.watch(
        model, optimizer, clip=1.0, project="p", name="n", tags=["a"], config=config, total_steps=9, start_step=3
    ) as monitor:
        model(torch.ones(1, 2)).sum().backward()
        monitor.clip(1.0)
        monitor.log({"accuracy": 0.5})
        monitor.event("checkpoint", "saved")
    (run,) = spooled(own_directory)
    assert [frame.kind for frame in run] == [
        Kind.HELLO, Kind.LAYERS, Kind.STEPS, Kind.EVENT, Kind.SCALARS, Kind.FINISH,
    ]  # fmt: skip
    assert sorted(frame.header["seq"] for frame in run) == list(range(6))
    hello = run[0].header
    assert (hello["project"], hello["run"], hello["name"], hello["tags"]) == ("p", "my run", "n", ["a"])
    assert (hello["start_step"], hello["total_steps"], hello["rank"], hello["world_size"]) == (3, 9, 0, 1)
    assert hello["config"] == {"lr": 0.1, "api_token": "***", "nested": {"password": "***", "depth": "nan"}}
    assert "hunter2" not in json.dumps(hello)
    assert hello["clip"] == {"strategy": "GlobalNorm", "max_norm": 1.0, "norm_type": 2.0}
    assert run[-1].header["state"] == "finished" and run[-1].header["last_step"] == 3


def test_watching_again_replaces_the_earlier_monitor(own_directory: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for clip in (1.0, 2.0):
        monitor = gradwatch.watch(model, optimizer, clip=clip)
        monitor.clip()
    assert registry.owner_of(model.weight) is monitor
    other = gradwatch.watch(nn.Linear(1, 1), optimizer, clip=3.0)
    other.finish()
    assert [run[-1].header["reason"] for run in spooled(own_directory)] == ["watched again", "watched again"]


def test_a_forgotten_model_takes_its_monitor_along() -> None:
    model = nn.Linear(2, 2)
    gradwatch.watch(model, clip=1.0)
    weight = model.weight
    assert registry.owner_of(weight) is not None
    del model
    gc.collect()
    assert registry.owner_of(weight) is None


def test_disabled_clips_and_starts_nothing(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setenv("GRADWATCH_MODE", "disabled")
    before = threading.active_count()
    parameter = nn.Parameter(torch.zeros(2))
    model = nn.ParameterList([parameter])
    monitor = gradwatch.watch(model, clip=1.0)
    parameter.grad = torch.tensor([3.0, 4.0])
    assert monitor.clip().item() == 5.0
    assert parameter.grad is not None and parameter.grad.norm().item() == pytest.approx(1.0)
    assert threading.active_count() == before and not own_directory.exists()


def test_only_the_first_rank_streams(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    gradwatch.watch(nn.Linear(1, 1), clip=1.0).clip()
    assert not own_directory.exists()


def test_an_uncaught_exception_ends_the_run_as_failed(own_directory: Path) -> None:
    code = (
        "import gradwatch, torch\n"
        "monitor = gradwatch.watch(torch.nn.Linear(1, 1), clip=1.0)\n"
        "monitor.clip()\n"
        "raise KeyError('of the user')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 1 and ended.stderr.count("Traceback") == 1
    (run,) = spooled(own_directory)
    assert (run[-1].header["state"], run[-1].header["reason"]) == ("failed", "KeyError: 'of the user'")


def test_config_is_stored_as_json_can_hold_it() -> None:
    odd = {"path": Path("/x"), "list": (1, 2.5, float("inf")), "big": 2**60, 7: None, "flag": True, "secret_key": [1]}
    assert storable_config(odd) == {
        "path": str(Path("/x")), "list": [1, 2.5, "inf"], "big": str(2**60), "7": None, "flag": True,
        "secret_key": "***",
    }  # fmt: skip
