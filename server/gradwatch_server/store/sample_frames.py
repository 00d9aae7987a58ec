"""Frames of what the hook measures of single layers now and then: sampled values, and histograms of gradients."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from gradwatch import frames
from gradwatch.frames import Column, Frame, FrameError, Kind
from numpy.typing import NDArray

from .decode import DTYPES, LayerTable, Steps, check_steps

HISTOGRAM: Final = "grad_histogram"
LOWEST: Final = -48  # exponent of two: bin 0 lies below 2**LOWEST, ...
BINS: Final = 66  # ... bin i from 2**(LOWEST + i - 1) to 2**(LOWEST + i), the last from 2**16 on

# The kind under which a frame is stored says its metric, too, so that one index finds the frames of one metric.
_STORED_KINDS: Final[Mapping[str, int]] = {
    "weight_norm": 1 << 8 | Kind.SAMPLES,
    "update_ratio": 2 << 8 | Kind.SAMPLES,
    "layer_coefficient": 3 << 8 | Kind.SAMPLES,
    HISTOGRAM: int(Kind.HISTOGRAM),
}
_PLACE: Final = (Column("place", "u4"), Column("step", "i8"))
SAMPLES_COLUMNS: Final = (*_PLACE, Column("value", "f4"))
HISTOGRAM_COLUMNS: Final = (
    *_PLACE,
    Column("elements", "i8"),
    Column("zero", "u4"),
    Column("nonfinite", "u4"),
    Column("counts", "u4", BINS),
)


@dataclass(frozen=True, slots=True)
class SampleRows:
    """Rows of one frame. ``layers`` are numbered as the writer numbers them."""

    layers: NDArray[np.intp]
    steps: Steps
    columns: Mapping[str, NDArray[Any]]  # value; or elements, zero, nonfinite, counts (rows x BINS)

    def take(self, rows: NDArray[Any]) -> SampleRows:
        """The rows picked out by an index or a mask."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return SampleRows(self.layers[rows], self.steps[rows], columns)

    def numbered(self, positions: NDArray[np.intp]) -> SampleRows:
        """With layer i as ``positions[i]``; those with a negative position are left out."""
        layers = positions[self.layers]
        return SampleRows(layers, self.steps, self.columns).take(layers >= 0)


def joined(parts: Sequence[SampleRows]) -> SampleRows:
    """Rows of one or more parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return SampleRows(
        np.concatenate([part.layers for part in parts]),
        np.concatenate([part.steps for part in parts]),
        {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
    )


def latest(rows: SampleRows) -> SampleRows:
    """Rows by layer and step; of a step given twice only the last word stays."""
    order = np.lexsort((rows.steps, rows.layers))  # stable: what came later stays later
    changes = (np.diff(rows.layers[order]) != 0) | (np.diff(rows.steps[order]) != 0)
    return rows.take(order[np.append(changes, True)] if len(order) else order)


def stored_kind(metric: str) -> int:
    """What stands in ``frames.kind`` for the frames of a metric."""
    return _STORED_KINDS[metric]


def metric_of(frame: Frame) -> str:
    """The metric of a frame. Raises FrameError where it has none that belongs to its kind."""
    metric = frame.header.get("metric")
    known = [name for name, kind in _STORED_KINDS.items() if kind & 255 == frame.kind]
    if metric not in known:
        raise FrameError("field", f"'metric' must be one of {json.dumps(known)}, not {str(metric)[:40]!r}")
    return str(metric)


def check_samples(frame: Frame, table: LayerTable) -> SampleRows:
    """The rows of a samples or histogram frame, checked against the table it cites. Raises FrameError."""
    histogram = frame.kind is Kind.HISTOGRAM
    schema = _schema(frame)
    if frames.columns_from_json(frame.header.get("columns")) != list(schema):
        raise FrameError("field", f"'columns' must be {json.dumps([column.as_json() for column in schema])}")
    lowest = frame.header.get("lowest")
    if histogram and not (type(lowest) is int and lowest == LOWEST):
        raise FrameError("field", f"'lowest' must be {LOWEST}: bin 0 of a histogram lies below 2**{LOWEST}")
    frames.check_count("'rows'", frame.header.get("rows"))
    arrays = _arrays(frame)
    check_steps(arrays["step"], increasing=False)
    place = int(arrays["place"].max())
    if place >= len(table.layers):
        raise FrameError("field", f"a row names place {place} of a table of {len(table.layers)} layers")
    elements = arrays.get("elements", np.zeros(1))
    if int(elements.min()) < 0 or int(elements.max()) > frames.MAX_COUNT:
        raise FrameError("field", "'elements' must be a whole number from 0 to 2**53 - 1")
    return decode_samples(frame, table)


def decode_samples(frame: Frame, table: LayerTable) -> SampleRows:
    """The rows of a frame that was checked when it came."""
    arrays = _arrays(frame)
    steps, places = arrays.pop("step"), arrays.pop("place")
    return SampleRows(table.positions[places], steps.astype(np.int64), arrays)


def _schema(frame: Frame) -> Sequence[Column]:
    return HISTOGRAM_COLUMNS if frame.kind is Kind.HISTOGRAM else SAMPLES_COLUMNS


def _arrays(frame: Frame) -> dict[str, NDArray[Any]]:
    schema = _schema(frame)
    parts = frames.split(frame.body, schema, frame.header["rows"])
    arrays = {column.name: np.frombuffer(parts[column.name], DTYPES[column.dtype]) for column in schema}
    if "counts" in arrays:
        arrays["counts"] = arrays["counts"].reshape(-1, BINS)
    return arrays
