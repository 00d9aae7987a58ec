"""What the README says is true: its code runs, its commands, settings, series, folders and pictures exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import gradwatch
import pytest
import torch
from gradwatch import watching
from gradwatch.cli import main
from gradwatch.journal import step_columns
from gradwatch_server.api.control import COMMANDS, Wanted
from gradwatch_server.settings import Settings as ServerSettings
from pydantic import TypeAdapter
from torch import nn

from tests.processes import ServerProcess
from tests.server.stream import Socket, Writer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONTROL = (ROOT / "docs" / "control.md").read_text()
CLIPPING = (ROOT / "docs" / "clipping.md").read_text()
HOOK_SETTINGS = {"DIR", "TOKEN", "SERVER", "MODE", "PROJECT", "GROUP", "RUN", "RANKS", "SPOOL_CAP"}


def table(heading: str) -> str:
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return "\n".join(line for line in section.splitlines() if line.startswith("|"))


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWATCH_DIR", str(tmp_path))
    monkeypatch.setenv("GRADWATCH_MODE", "offline")
    code = README.split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if "gradwatch" in line or "monitor" in line]) <= 6
    model = nn.Linear(3, 1)
    world: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "criterion": nn.MSELoss(),
        "batches": [(torch.ones(2, 3), torch.ones(2, 1))] * 3,
    }
    exec(code, world)
    assert world["monitor"].step == 3


@pytest.mark.parametrize("text", [README.split("## Look around")[1], (ROOT / "docs" / "landscape.md").read_text()])
def test_the_probe_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWATCH_DIR", str(tmp_path))
    monkeypatch.setenv("GRADWATCH_MODE", "offline")
    monkeypatch.setattr(watching, "_share", lambda name, share: 50.0)  # a probe at every step, however busy the machine
    model = nn.Linear(3, 1)
    world: dict[str, Any] = {
        "gradwatch": gradwatch,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "criterion": nn.MSELoss(),
        **dict.fromkeys(("held_out", "inputs"), torch.ones(2, 3)),
        "targets": torch.ones(2, 1),
    }
    exec(text.split("```python\n")[1].split("```")[0], world)
    monitor = world["monitor"]
    for _ in range(30):
        model(torch.randn(4, 3)).sum().backward()
        monitor.clip()
        world["optimizer"].step()
    assert monitor._writer._prober.points > 3 and monitor._writer._prober.is_active
    monitor.finish()


def test_the_commanded_loop_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWATCH_DIR", str(tmp_path))
    monkeypatch.setenv("GRADWATCH_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(3, 1)
    world: dict[str, Any] = {
        "gradwatch": gradwatch,
        "torch": torch,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "criterion": nn.MSELoss(),
        "batches": [(torch.ones(2, 3), torch.ones(2, 1))] * 3,
    }
    exec(CONTROL.split("```python\n")[1].split("```")[0], world)
    monitor = world["monitor"]
    assert monitor.step == 3 and not monitor.should_stop
    world["save"](monitor)
    assert torch.load("step3.pt", weights_only=True)["gradwatch"] == monitor.state_dict()


def test_every_command_to_a_training_stands_in_the_table() -> None:
    written = [json.loads(body) for body in re.findall(r"^\| `(\{.*?\})` \|", CONTROL, re.MULTILINE)]
    checked = [TypeAdapter(Wanted).validate_python(body).model_dump() for body in written]
    assert {body["command"] for body in checked} == set(COMMANDS) and checked == written


@pytest.mark.parametrize("text", [README.split("## Read runs back")[1], (ROOT / "docs" / "reading.md").read_text()])
def test_reading_back_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ServerProcess(tmp_path / "gradwatch") as server:
        layers = ["encoder.0.weight", "encoder.0.bias", "decoder.weight"]
        writer = Writer(layers, project="lm", run="baseline", name="baseline", config={"lr": 3e-4})
        with Socket(server.url, "/api/ingest") as socket:
            socket.store(writer, writer.opening() + writer.steps(range(300), [1, 2, 3], loss=range(300)))
            socket.store(writer, writer.event("checkpoint", "step 5", 5) + writer.finish())
        monkeypatch.setenv("GRADWATCH_DIR", str(tmp_path / "gradwatch"))
        monkeypatch.chdir(tmp_path)
        world: dict[str, Any] = {"gradwatch": gradwatch, "print": lambda *found: None}
        exec(text.split("```python\n")[1].split("```")[0], world)
    assert world["run"].id == writer.run and (tmp_path / "baseline.parquet").read_bytes()[:4] == b"PAR1"
    layered = world["norms"] if "norms" in world else world["layers"]
    assert layered.names == layers[:2] and (layered.max == [1, 2]).all()
    loss = world["loss"] if "loss" in world else world["series"]
    assert (loss["loss"] == loss.steps).all()


def test_every_setting_stands_in_the_table_and_no_other() -> None:
    said = set(re.findall(r"`GRADWATCH_(\w+)`", table("Settings").replace("in `GRADWATCH_DIR`", "")))
    assert said == HOOK_SETTINGS | {name.upper() for name in ServerSettings.model_fields}
    source = (ROOT / "client_hook/gradwatch/settings.py").read_text()
    assert set(re.findall(r'"GRADWATCH_(\w+)"', source)) == HOOK_SETTINGS


def test_every_command_stands_in_the_table_with_its_options() -> None:
    context = click.Context(main)
    rows = [line for line in table("Commands").splitlines() if "`gradwatch " in line]
    said = {
        match[1]: set(re.findall(r"`(--[\w-]+)`", line))
        for line in rows
        if (match := re.search(r"gradwatch (\w+)", line))
    }
    assert set(said) == set(main.list_commands(context))
    for name, options in said.items():
        command = main.get_command(context, name)
        assert command is not None
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert options <= known and {option for option in known if option.startswith("--")} - options <= {"--browser"}


def test_every_target_of_the_makefile_stands_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)) - {"help"}
    assert set(re.findall(r"`make (\w+)`", table("Commands"))) == targets


def test_the_recorded_series_are_those_of_the_frames() -> None:
    said = set(re.findall(r"`(\w+)`", table("What is measured, and when it alerts"))) - {"clip"}
    columns = {column.name for column in step_columns(1, "f4")} - {"step", "time", "grad_norm", "absent"}
    assert said == columns


def test_every_strategy_stands_in_the_table_as_it_can_be_written() -> None:
    section = CLIPPING.split("\n## Strategies\n")[1].split("\n## ")[0]
    written = re.findall(r"^\| `((\w+)\(.*?\))` \|", section, re.MULTILINE)
    strategies = {
        name
        for name in gradwatch.__all__
        if isinstance(kind := getattr(gradwatch, name), type) and issubclass(kind, gradwatch.Strategy)
    }
    assert {name for _, name in written} == strategies - {"Strategy"}
    for code, name in written:
        assert isinstance(eval(f"gradwatch.{code}"), getattr(gradwatch, name))


def test_the_folders_exist() -> None:
    block = README.split("## Where things are")[1].split("```")[1]
    folder = ROOT
    for line in block.splitlines()[1:]:
        names = re.split(r"  +", line.strip())[0].split()
        if not line.startswith(" "):
            folder = ROOT / names[0]
            assert folder.is_dir(), folder
        else:
            assert all((folder / name).exists() for name in names), (folder, names)


def test_the_pictures_exist() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert len(pictures) >= 2 and all((ROOT / picture).stat().st_size > 10_000 for picture in pictures)
