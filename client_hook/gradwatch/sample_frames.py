"""Samples as frames: what of a frame depends on them, without writer and number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from gradwatch.frames import Buffer, Column, Kind
from gradwatch.measure.magnitude import BINS, LOWEST

if TYPE_CHECKING:
    from gradwatch.measure.sample import Sample

SAMPLE_COLUMNS: Final = (Column("place", "u4"), Column("step", "i8"), Column("value", "f4"))
HISTOGRAM_COLUMNS: Final = (
    Column("place", "u4"),
    Column("step", "i8"),
    Column("elements", "i8"),
    Column("zero", "u4"),
    Column("nonfinite", "u4"),
    Column("counts", "u4", BINS + 2),
)
_FRAME_BYTES: Final = 128 << 10  # of one frame at most: joining it holds the interpreter for well under 200 us
_HEAD_BYTES: Final = 1 << 10  # of them for prefix, header and padding
_SAMPLE_BYTES: Final = 16
_HISTOGRAM_BYTES: Final = 28 + 4 * (BINS + 2)

Parts = tuple[Kind, Mapping[str, Any], list[Buffer]]


def sample_frames(samples: Sequence[Sample], table: str) -> Iterator[Parts]:
    """Kind, header (without ``writer`` and ``seq``) and columns of frames of 128 KiB at most that hold ``samples``.

    ``samples``: ready ones, in any order, whose places are rows of the layer table cited as ``table``; those of one
    metric share frames. Ratios that do not exist (``update_ratio.ABSENT``) have no row.
    """
    for metric in sorted({sample.metric for sample in samples}):
        chosen = [sample for sample in samples if sample.metric == metric]
        places = np.concatenate([sample.places for sample in chosen])
        steps = np.concatenate([np.full(len(sample.places), sample.step, np.int64) for sample in chosen])
        values = np.concatenate([sample.numpy() for sample in chosen])
        if metric == "grad_histogram":
            yield from _histograms(table, places, steps, values)
        else:
            yield from _values(metric, table, places, steps, values)


def _values(
    metric: str, table: str, places: npt.NDArray[Any], steps: npt.NDArray[Any], values: npt.NDArray[Any]
) -> Iterator[Parts]:
    there = ~(values < 0) if metric == "update_ratio" else np.ones(len(values), np.bool_)
    columns = {"place": places[there], "step": steps[there], "value": values[there]}
    header = {"metric": metric, "table": table}
    yield from _frames(Kind.SAMPLES, header, SAMPLE_COLUMNS, columns, _SAMPLE_BYTES)


def _histograms(
    table: str, places: npt.NDArray[Any], steps: npt.NDArray[Any], values: npt.NDArray[Any]
) -> Iterator[Parts]:
    columns = {
        "place": places,
        "step": steps,
        "elements": values.sum(1),
        "zero": values[:, 0],
        "nonfinite": values[:, 1],
        "counts": values[:, 2:],
    }
    header = {"metric": "grad_histogram", "table": table, "lowest": LOWEST}
    yield from _frames(Kind.HISTOGRAM, header, HISTOGRAM_COLUMNS, columns, _HISTOGRAM_BYTES)


def _frames(
    kind: Kind, header: dict[str, Any], schema: Sequence[Column], columns: dict[str, npt.NDArray[Any]], row_bytes: int
) -> Iterator[Parts]:
    most = (_FRAME_BYTES - _HEAD_BYTES) // row_bytes
    for start in range(0, len(columns["place"]), most):
        part = slice(start, start + most)
        body: list[Buffer] = [_as_bytes(columns[column.name][part], column.dtype) for column in schema]
        rows = len(columns["place"][part])
        yield kind, {**header, "rows": rows, "columns": [column.as_json() for column in schema]}, body


def _as_bytes(column: npt.NDArray[Any], dtype: str) -> memoryview:
    return np.ascontiguousarray(column, f"<{dtype}").reshape(-1).view(np.uint8).data
