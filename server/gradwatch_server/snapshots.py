"""Reduced columns as SNAPSHOT and DELTA frames, each at most 1 MiB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from gradwatch import frames
from gradwatch.frames import Column, Kind
from numpy.typing import NDArray

from .store.decode import LAYER_METRIC
from .store.queries import Reduced

_HEADER_ROOM: Final = 2048  # bytes for the header's short fields, the prefix and the padding of a column
_BYTES_PER_SERIES: Final = 40
_BYTES_PER_LAYER: Final = 20


def encode_columns(kind: Kind, about: dict[str, Any], reduced: Reduced) -> Iterator[bytes]:
    """``reduced`` as one or more frames; ``about`` goes into each header (request, run, first, last, last_step)."""
    layers = len(reduced.layer_names) if reduced.layers is not None else 0
    most = most_rows(about, reduced.names, layers, reduced.metric)
    count = len(reduced.first)
    parts = max(1, -(-count // most))
    for part in range(parts):
        rows = slice(part * most, min(count, (part + 1) * most))
        yield encode_part(kind, about, reduced, rows, part, parts)


def most_rows(about: dict[str, Any], names: list[str], layers: int, metric: str = LAYER_METRIC) -> int:
    """How many columns of a run fit into one frame, with ``layers`` layers each."""
    columns = [column.as_json() for column in _schema(names, metric, layers)]
    # Column names reach 1 KiB and may be escaped, so the header's size is measured, not guessed.
    overhead = len(frames.encode(Kind.SNAPSHOT, {"columns": columns, "series": names, **about})) + _HEADER_ROOM
    per_row = 16 + _BYTES_PER_SERIES * len(names) + _BYTES_PER_LAYER * layers
    return max(1, (frames.MAX_FRAME - overhead - 8 * len(columns)) // per_row)


def encode_part(kind: Kind, about: dict[str, Any], reduced: Reduced, rows: slice, part: int, parts: int) -> bytes:
    """Some rows of ``reduced``, which must fit into one frame, as part number ``part`` of ``parts``."""
    layers = len(reduced.layer_names) if reduced.layers is not None else 0
    header = {
        **about,
        "width": reduced.width,
        "rows": rows.stop - rows.start,
        "series": reduced.names,
        "layers": layers,
        "columns": [column.as_json() for column in _schema(reduced.names, reduced.metric, layers)],
        "part": part,
        "parts": parts,
    }
    return frames.encode(kind, header, [data.tobytes() for data in _columns(reduced, rows)])


def _schema(names: list[str], metric: str, layers: int) -> Iterator[Column]:
    yield from (Column("first", "i8"), Column("last", "i8"))
    for name in names:
        yield from (Column(f"{name}.{field}", "f8") for field in ("min", "max", "mean", "last"))
        yield from (Column(f"{name}.{field}", "u4") for field in ("count", "nonfinite"))
    if layers:
        yield from (Column(f"{metric}.{field}", "f4", layers) for field in ("min", "max", "mean"))
        yield from (Column(f"{metric}.{field}", "u4", layers) for field in ("count", "nonfinite"))


def _columns(reduced: Reduced, rows: slice) -> Iterator[NDArray[Any]]:
    yield reduced.first[rows].astype("<i8")
    yield reduced.last[rows].astype("<i8")
    scalars = reduced.scalars.columns(rows)
    empty = scalars.count == 0
    low, high = np.where(empty, np.nan, scalars.minimum), np.where(empty, np.nan, scalars.maximum)
    mean = scalars.mean()
    for at in range(len(reduced.names)):
        for values in (low, high, mean, scalars.latest()[0]):
            yield values[:, at].astype("<f8")
        for counts in (scalars.count, scalars.nonfinite):
            yield counts[:, at].astype("<u4")
    if reduced.layers is not None and reduced.layer_names:
        layers = reduced.layers.columns(rows)
        empty = layers.count == 0
        with np.errstate(over="ignore"):
            for values in (layers.minimum, layers.maximum, layers.mean()):
                yield np.where(empty, np.nan, values).astype("<f4")
        yield layers.count.astype("<u4")
        yield layers.nonfinite.astype("<u4")
