"""Frames to numpy rows, by the table they cite. Nothing here touches a value one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from gradwatch import frames
from gradwatch.frames import Column, Frame, FrameError
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]
Mask = NDArray[np.bool_]

# The one NaN that means "nobody gave a value"; every other NaN came out of the training.
MISSING_BITS: Final = 0x7FF80000_6D697373
MISSING: Final = np.uint64(MISSING_BITS).view(np.float64)

LAYER_METRIC: Final = "grad_norm"
# `skipped` is 1 or 2 by who leaves a step out, so no mean of it tells how many; its 2s are a series of their own.
SKIPPED: Final = "skipped"
OVERFLOWED: Final = "overflowed"
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "u1": np.dtype("u1"),
    "u4": np.dtype("<u4"),
    "i8": np.dtype("<i8"),
    "f4": np.dtype("<f4"),
    "f8": np.dtype("<f8"),
}
SCALARS_COLUMNS: Final = (Column("series", "u4"), Column("step", "i8"), Column("time", "f8"), Column("value", "f8"))


@dataclass(frozen=True, slots=True)
class Layer:
    """One parameter tensor, as the hook announced it."""

    name: str
    shape: tuple[int, ...]
    numel: int
    order: int  # position in execution order


@dataclass(frozen=True, slots=True)
class LayerTable:
    """What a steps frame cites: its columns, and which of the writer's layers its layer columns mean."""

    hash: str
    layers: tuple[Layer, ...]
    columns: tuple[Column, ...]
    positions: NDArray[np.intp] = field(repr=False)  # table index -> the writer's index

    @property
    def scalars(self) -> list[str]:
        """The scalar series: columns, and what follows from them."""
        other = ("step", "time", "absent", LAYER_METRIC)
        names = [column.name for column in self.columns if column.width == 1 and column.name not in other]
        return [*names, OVERFLOWED] if SKIPPED in names and OVERFLOWED not in names else names


@dataclass(frozen=True, slots=True)
class StepRows:
    """Rows of one writer. ``layers[r, i]`` belongs to the writer's layer i; where ``present`` is False nothing came."""

    steps: Steps
    times: Floats
    scalars: dict[str, Floats]
    layers: NDArray[Any]
    present: Mask | None  # None: all present

    def take(self, rows: NDArray[Any] | slice) -> StepRows:
        """The rows picked out by an index, a mask or a slice."""
        return StepRows(
            self.steps[rows],
            self.times[rows],
            {name: values[rows] for name, values in self.scalars.items()},
            self.layers[rows],
            None if self.present is None else self.present[rows],
        )


@dataclass(frozen=True, slots=True)
class ScalarRows:
    """Rows of user-logged series."""

    names: list[str]
    series: NDArray[np.uint32]
    steps: Steps
    times: Floats
    values: Floats
    seqs: Steps  # of the frames they came in

    def between(self, first: int, last: int) -> ScalarRows:
        """Those of steps from first to last."""
        inside = (self.steps >= first) & (self.steps <= last)
        times, values, seqs = self.times[inside], self.values[inside], self.seqs[inside]
        return ScalarRows(self.names, self.series[inside], self.steps[inside], times, values, seqs)


def step_columns(frame: Frame, table: LayerTable) -> dict[str, memoryview]:
    """The columns of a steps frame, cut and checked. Raises FrameError."""
    without = frame.header.get("without", [])
    if not isinstance(without, list) or not all(isinstance(name, str) for name in without) or "step" in without:
        raise FrameError("field", "'without' must be a list of column names other than step")
    rows = frames.check_count("'rows'", frame.header.get("rows"))
    return frames.split(frame.body, [c for c in table.columns if c.name not in without], rows)


def step_numbers(frame: Frame, table: LayerTable) -> Steps:
    """The steps of a steps frame."""
    return np.frombuffer(step_columns(frame, table)["step"], DTYPES["i8"])


def decode_steps(frame: Frame, table: LayerTable, width: int) -> StepRows:
    """The rows of one steps frame, spread over ``width`` layers of its writer; 0: its scalars alone."""
    parts = step_columns(frame, table)
    rows = int(frame.header["rows"])
    arrays = {c.name: np.frombuffer(parts[c.name], DTYPES[c.dtype]) for c in table.columns if c.name in parts}
    times = arrays["time"] if "time" in arrays else np.full(rows, np.nan)
    scalars = {name: arrays[name].astype(np.float64) for name in table.scalars if name in arrays}
    if SKIPPED in scalars:
        scalars.setdefault(OVERFLOWED, (scalars[SKIPPED] == 2).astype(np.float64))
    values, present = _layers(arrays, table, rows) if width else (np.zeros((rows, 0), np.float32), None)
    count = len(table.layers)
    if width and (width != count or not np.array_equal(table.positions, np.arange(count))):
        values, present = _spread(values, present, table.positions, width)
    return StepRows(arrays["step"].astype(np.int64), times.astype(np.float64), scalars, values, present)


def _layers(arrays: Mapping[str, NDArray[Any]], table: LayerTable, rows: int) -> tuple[NDArray[Any], Mask | None]:
    count = len(table.layers)
    if LAYER_METRIC not in arrays:
        return np.zeros((rows, count), np.float32), np.zeros((rows, count), np.bool_)
    values = arrays[LAYER_METRIC].reshape(rows, count)
    if "absent" not in arrays or not arrays["absent"].any():
        return values, None
    bits = np.unpackbits(arrays["absent"].reshape(rows, -1), axis=1, count=count, bitorder="little")
    return values, bits == 0


def _spread(
    values: NDArray[Any], present: Mask | None, positions: NDArray[np.intp], width: int
) -> tuple[NDArray[Any], Mask]:
    wide = np.zeros((len(values), width), values.dtype)
    wide[:, positions] = values
    there = np.zeros((len(values), width), np.bool_)
    there[:, positions] = True if present is None else present
    return wide, there


def decode_scalars(frame: Frame) -> ScalarRows:
    """The rows of a scalars frame, checked. Raises FrameError."""
    names = frame.header.get("series")
    if not isinstance(names, list) or not names:
        raise FrameError("field", "'series' must be a list of names")
    names = [frames.check_text("a series' name", name) for name in names]
    rows = frames.check_count("'rows'", frame.header.get("rows"))
    if frames.columns_from_json(frame.header.get("columns")) != list(SCALARS_COLUMNS):
        raise FrameError("field", f"'columns' must be {json.dumps([c.as_json() for c in SCALARS_COLUMNS])}")
    parts = frames.split(frame.body, SCALARS_COLUMNS, rows)
    series, steps, times, values = (np.frombuffer(parts[c.name], DTYPES[c.dtype]) for c in SCALARS_COLUMNS)
    if rows and int(series.max()) >= len(names):
        raise FrameError("field", f"a row names series {int(series.max())} of {len(names)}")
    check_steps(steps, increasing=False)
    seqs = np.full(rows, int(frame.header["seq"]), np.int64)
    exact = (times.astype(np.float64), values.astype(np.float64))
    return ScalarRows(names, series, steps.astype(np.int64), *exact, seqs)


def check_steps(steps: NDArray[Any], *, increasing: bool) -> None:
    """Steps of a frame: at least one, 0 to 2**53 - 1, strictly increasing where asked. Raises FrameError."""
    if not len(steps):
        raise FrameError("field", "'rows' is 0: a frame without rows says nothing")
    if int(steps.min()) < 0 or int(steps.max()) > frames.MAX_COUNT:
        raise FrameError("field", "'step' must be a whole number from 0 to 2**53 - 1")
    if increasing and len(steps) > 1 and not (np.diff(steps) > 0).all():
        raise FrameError("field", "the steps of a frame must be strictly increasing")
