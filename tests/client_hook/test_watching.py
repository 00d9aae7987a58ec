"""``gradwatch.watch``: what it says when an argument is wrong, what it tells of a run, and watching again."""

from __future__ import annotations

import gc
import inspect
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import gradwatch
import pytest
import torch
from gradwatch import frames, registry
from gradwatch.frames import Kind
from gradwatch.leftovers import leftovers
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
    promised = (
        "model optimizer clip nonfinite project name group tags config total_steps start_step layers sample_budget "
    )
    promised += "probe probe_budget control on_checkpoint fold server mode"
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
    assert hello["clip"] == {"strategy": "GlobalNorm", "max_norm": 1.0, "norm_type": 2.0, "threshold_of": "total norm"}
    assert run[-1].header["state"] == "finished" and run[-1].header["last_step"] == 3


@pytest.mark.parametrize(
    ("arguments", "commands"),
    [
        ({}, ["set_threshold", "stop"]),
        ({"clip": None}, ["stop"]),
        ({"on_checkpoint": lambda monitor: None}, ["set_threshold", "stop", "checkpoint"]),
        ({"probe": lambda model: model.weight.sum()}, ["set_threshold", "stop", "probe_landscape"]),
        ({"probe": lambda model: model.weight.sum(), "probe_budget": 0}, ["set_threshold", "stop"]),
    ],
)
def test_a_run_tells_which_commands_it_takes(own_directory: Path, arguments: Any, commands: list[str]) -> None:
    for control in ({"control": True}, {}):
        if control or "on_checkpoint" not in arguments:
            monitor = gradwatch.watch(nn.Linear(2, 2), **{"clip": 1.0, **arguments, **control})
            monitor.log({"a": 1.0})
            monitor.finish()
    hellos = [run[0].header for run in spooled(own_directory)]
    assert [hello["commands"] for hello in hellos if hello.get("control")] == [commands]
    assert all("commands" not in hello for hello in hellos if "control" not in hello)


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


def test_a_forked_child_says_nothing_in_its_parents_name(own_directory: Path) -> None:
    code = (
        "import os, sys, time, gradwatch, torch\n"
        "model = torch.nn.Linear(1, 1); monitor = gradwatch.watch(model, clip=1.0); monitor.clip()\n"
        "time.sleep(0.1)\n"
        "if os.fork() == 0:\n"
        "    begun = time.monotonic(); monitor.clip(); gradwatch.clip_grad_norm_(model.parameters(), 1.0)\n"
        "    sys.exit(0) if len(sys.argv) < 2 else 1 / 0\n"
        "assert os.waitstatus_to_exitcode(os.wait()[1]) in (0, 1)\n"
        "monitor.clip(); monitor.finish()"
    )
    for failing in ([], ["fail"]):
        ended = subprocess.run([sys.executable, "-c", code, *failing], capture_output=True, text=True, timeout=100)
        assert ended.returncode == 0, ended.stderr
    runs = spooled(own_directory)
    assert len(runs) == 2
    for run in runs:
        assert sorted(frame.header["seq"] for frame in run) == list(range(len(run)))
        assert [frame.kind for frame in run].count(Kind.FINISH) == 1 and run[-1].header["state"] == "finished"
        assert run[-1].header["last_step"] == 1


def test_without_torch_it_is_said_what_to_install() -> None:
    code = "import sys; sys.modules['torch'] = None; import gradwatch; gradwatch.watch"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "ImportError: gradwatch's hook needs torch: pip install" in ended.stderr


@pytest.mark.skipif(os.name == "nt", reason="no file modes there")
def test_what_is_recorded_is_for_its_user_only(own_directory: Path) -> None:
    with gradwatch.watch(nn.Linear(1, 1), clip=1.0) as monitor:
        monitor.clip()
    found = [own_directory, *own_directory.rglob("*")]
    assert len(found) > 3 and {path.stat().st_mode & 0o077 for path in found} == {0}


def test_many_runs_cost_one_exit(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five runs whose server takes connections and never answers: the process ends within its two seconds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("GRADWATCH_MODE", "online")
        monkeypatch.setenv("GRADWATCH_SERVER", f"http://127.0.0.1:{listener.getsockname()[1]}")
        code = (
            "import atexit, gradwatch, torch, time\n"
            "begun = []\n"
            "atexit.register(lambda: print(time.monotonic() - begun[0]))\n"
            "models = [torch.nn.Linear(1, 1) for _ in range(5)]\n"
            "for model in models: gradwatch.watch(model, clip=1.0).clip()\n"
            "begun.append(time.monotonic())"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0
    # Atexit functions run last in, first out: the printing one after all the runs'.
    assert float(ended.stdout) < 2 + 5 * 0.5
    assert [run[-1].kind for run in spooled(own_directory)] == [Kind.FINISH] * 5


@pytest.mark.parametrize("end", ["raise SystemExit(0)", "raise SystemExit"])
def test_leaving_by_exit_is_an_ordinary_end(end: str, own_directory: Path) -> None:
    with pytest.raises(SystemExit), gradwatch.watch(nn.Linear(1, 1), clip=1.0) as monitor:
        monitor.clip()
        exec(end)
    (run,) = spooled(own_directory)
    assert run[-1].header["state"] == "finished"


def test_an_exception_that_cannot_be_told_stays_the_users(own_directory: Path) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    with pytest.raises(Mute), gradwatch.watch(nn.Linear(1, 1), clip=1.0) as monitor:
        monitor.clip()
        raise Mute
    (run,) = spooled(own_directory)
    assert (run[-1].header["state"], run[-1].header["reason"]) == ("failed", "Mute")


def test_lazy_modules_can_be_watched(own_directory: Path) -> None:
    model = nn.LazyLinear(2)
    with gradwatch.watch(model, clip=1.0) as monitor:
        model(torch.ones(1, 3)).sum().backward()
        monitor.clip()
    (run,) = spooled(own_directory)
    assert run[1].header["layers"] == [["weight", [2, 3], 6, 0], ["bias", [2], 2, 1]]


def test_a_default_device_does_not_reach_our_rows(own_directory: Path) -> None:
    model = nn.Linear(2, 2)
    torch.set_default_device("meta")
    try:
        with gradwatch.watch(model, clip=1.0) as monitor:
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            monitor.clip()
    finally:
        torch.set_default_device(None)
    (run,) = spooled(own_directory)
    assert Kind.STEPS in [frame.kind for frame in run]


def test_one_odd_value_does_not_take_the_others_with_it(own_directory: Path) -> None:
    with gradwatch.watch(nn.Linear(1, 1), clip=1.0) as monitor:
        monitor.clip(torch.zeros(3))  # no single number: the step is recorded without it
        monitor.log({"good": 1.0})
        monitor.log({"half": 2.0, "bad": torch.zeros(3)})
        monitor.log({"loss": 1.0})
        monitor.log({"better": torch.tensor(3.0)})
        monitor.event("odd \ud800", "text \0")
    (run,) = spooled(own_directory)
    logged = [name for frame in run if frame.kind is Kind.SCALARS for name in frame.header["series"]]
    assert sorted(logged) == ["better", "good"]
    assert [frame.header["name"] for frame in run if frame.kind is Kind.EVENT and "odd" in frame.header["name"]]
    assert Kind.STEPS in [frame.kind for frame in run]


def test_a_configuration_beyond_measure_does_not_cost_the_run(own_directory: Path) -> None:
    with gradwatch.watch(nn.Linear(1, 1), clip=1.0, config={f"k{n}": "v" * 300 for n in range(5000)}) as monitor:
        monitor.clip()
    (run,) = spooled(own_directory)
    assert run[0].kind is Kind.HELLO and "left out" in run[0].header["config"]["gradwatch"]
