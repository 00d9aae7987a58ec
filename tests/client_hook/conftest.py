"""What the hook's tests share: a sink that keeps what it is given, and gradients to clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from gradwatch import drop_in
from gradwatch.clipping.strategy import Strategy
from gradwatch.device_recorder import DeviceRecorder
from gradwatch.measure.sample import Sample
from gradwatch.monitor import Monitor
from gradwatch.probe.landscape_rows import LandscapeRows
from gradwatch.recorder import Recorder, Rows
from gradwatch.recording import Sink
from gradwatch.step_writer import Wanted
from torch import Tensor, nn
from torch.optim import Optimizer


class KeepingSink:
    """Keeps tables, rows, values and events in memory, as the recording thread would take them."""

    def __init__(self) -> None:
        self.tables: list[list[list[Any]]] = []
        self.recorders: list[Recorder | DeviceRecorder] = []
        self.values: list[tuple[int, dict[str, float | Tensor]]] = []
        self.events: list[tuple[int, str, str]] = []
        self.samples: list[Sample] = []
        self.found: list[LandscapeRows] = []
        self.asked: list[Mapping[str, Any]] = []
        self.urgencies = 0
        self.ends: list[tuple[str, str]] = []

    def begin(self, table: list[list[Any]], recorder: Recorder | DeviceRecorder) -> None:
        self.tables.append(table)
        self.recorders.append(recorder)

    def urgent(self) -> None:
        self.urgencies += 1

    def log(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        self.values.append((step, dict(values)))

    def event(self, step: int, name: str, text: str) -> None:
        self.events.append((step, name, text))

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)

    def landscape(self, rows: LandscapeRows) -> None:
        self.found.append(rows)

    def commands(self) -> list[Mapping[str, Any]]:
        asked, self.asked = self.asked, []
        return asked

    def finish(self, state: str, reason: str) -> None:
        self.ends.append((state, reason))

    def abandon(self) -> None:
        self.finish("finished", "abandoned")

    def rows(self, table: int = -1) -> list[Rows]:
        return list(self.recorders[table].take(1_000_000))


def monitor_of(
    model: nn.Module, optimizers: list[Optimizer], strategy: Strategy, sink: Sink, **options: Any
) -> Monitor:
    return Monitor(
        model,
        optimizers,
        strategy,
        nonfinite=options.get("nonfinite", "record"),
        start_step=options.get("start_step", 0),
        wanted=Wanted(options.get("layers"), options.get("sample_budget", 0.0), options.get("probing")),
        fold=options.get("fold", True),
        open_sink=lambda step, strategy: sink,
        control=options.get("control"),
    )


@pytest.fixture
def sink() -> KeepingSink:
    return KeepingSink()


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """GRADWATCH_DIR in a temporary folder, and nothing said by the environment of whoever runs the tests."""
    for name in ("SERVER", "TOKEN", "MODE", "PROJECT", "RUN", "GROUP", "SPOOL_CAP"):
        monkeypatch.delenv(f"GRADWATCH_{name}", raising=False)
    monkeypatch.setenv("GRADWATCH_DIR", str(tmp_path / "gradwatch"))
    monkeypatch.setenv("GRADWATCH_MODE", "offline")
    # What earlier tests clipped without watching it takes no place from this one.
    monkeypatch.setattr(drop_in, "_stand_ins", [])
    monkeypatch.setattr(drop_in, "_told", [])
    yield tmp_path / "gradwatch"
