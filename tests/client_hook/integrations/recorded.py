"""What a run has recorded, read back from its spool frame by frame, and compared with the plain loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gradwatch import frames
from gradwatch.frames import Kind
from gradwatch.leftovers import leftovers
from torch import nn

from tests.client_hook.integrations.plain import MAX_NORM, Trained

TYPES = {"u1": np.uint8, "u4": np.uint32, "i8": np.int64, "f4": np.float32, "f8": np.float64}


@dataclass
class Recorded:
    """One run. ``columns``: each step column over all steps; ``layers``: names of the columns of ``grad_norm``."""

    hello: dict[str, Any]
    layers: list[str] = field(default_factory=list)
    columns: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    events: list[tuple[int, str, str]] = field(default_factory=list)
    finish: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        return list(map(int, self.columns.get("step", ())))


def recorded(directory: Path) -> list[Recorded]:
    """Every ended run in ``directory`` (GRADWATCH_DIR), in the order of their beginning."""
    runs = []
    for left in leftovers(directory / "spool"):
        runs.append(_read([frames.decode(data) for data in left.frames()]))
        left.close(delivered=False)
    return sorted(runs, key=lambda run: float(run.hello["started_at"]))


def _read(run: list[frames.Frame]) -> Recorded:
    found = Recorded(next(frame.header for frame in run if frame.kind is Kind.HELLO))
    tables = {frame.header["table"]: frame.header for frame in run if frame.kind is Kind.LAYERS}
    parts: list[dict[str, np.ndarray[Any, Any]]] = []
    for frame in run:
        header = frame.header
        if frame.kind is Kind.STEPS:
            table = tables[header["table"]]
            found.layers = [row[0] for row in table["layers"]]
            parts.append(_columns(frame, table["columns"], header.get("without", [])))
        elif frame.kind is Kind.SCALARS:
            columns = _columns(frame, header["columns"], [])
            for place, step, value in zip(columns["series"], columns["step"], columns["value"], strict=True):
                found.values.setdefault(header["series"][place], {})[int(step)] = float(value)
        elif frame.kind is Kind.EVENT:
            found.events.append((header["step"], header["name"], header["text"]))
        elif frame.kind is Kind.FINISH:
            found.finish = header
    for name in parts[0] if parts else ():
        if all(name in part for part in parts):
            found.columns[name] = np.concatenate([part[name] for part in parts])
    return found


def _columns(frame: frames.Frame, said: Any, without: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    columns = [column for column in frames.columns_from_json(said) if column.name not in without]
    body = frames.split(frame.body, columns, frame.header["rows"])
    arrays = {}
    for column in columns:
        array = np.frombuffer(body[column.name], TYPES[column.dtype])
        arrays[column.name] = array.reshape(-1, column.width) if column.name in ("grad_norm", "absent") else array
    return arrays


def assert_same(
    run: Recorded, plain: Trained, threshold: float = MAX_NORM, prefix: str = "", rtol: float = 1e-6
) -> None:
    """The run's norms and losses are the plain loop's, and so is what counts as clipped; nothing seemed odd."""
    assert run.steps == list(range(len(plain.total)))
    assert run.layers == [prefix + name for name in plain.names]
    np.testing.assert_allclose(run.columns["grad_norm"], plain.layers, rtol=rtol)
    np.testing.assert_allclose(run.columns["total_norm"], plain.total, rtol=rtol)
    np.testing.assert_allclose(run.columns["loss"], plain.loss, rtol=rtol)
    assert run.events == []
    clipped = [norm > threshold for norm in plain.total]
    assert run.columns["clipped"].tolist() == clipped
    if threshold == MAX_NORM:
        assert 5 < sum(clipped) < len(clipped) - 5  # both kinds of steps were there to be told apart


def assert_equal_parameters(model: nn.Module, plain: Trained, tolerance: float = 0.0) -> None:
    """To the last bit, unless a ``tolerance`` is given: a fused step that clips in passing rounds in another order."""
    trained = dict(model.named_parameters())
    for name, parameter in plain.model.named_parameters():
        assert (trained[name] - parameter).abs().max().item() <= tolerance, name


def steps_in(directory: Path) -> int:
    """Steps recorded in ``directory`` by all runs together."""
    return sum(len(run.steps) for run in recorded(directory))
