"""Raw steps as SNAPSHOT frames, every number with its bits; ``next`` in their headers tells where a page ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from gradwatch import frames
from gradwatch.frames import Column, Kind
from numpy.typing import NDArray

from ..store.decode import DTYPES, LAYER_METRIC
from ..store.queries import Queries, RawPage, RawRows
from ..store.views import View

MEDIA_TYPE: Final = "application/octet-stream"
PAGE_BYTES: Final = 4 << 20  # of one page of series; one of layers is a piece as it is read
_HEADER_ROOM: Final = 2048  # bytes for the header's short fields, the prefix and the padding of a column


@dataclass(frozen=True, slots=True)
class _Part:
    """One column of the frames: rows, or rows x width."""

    name: str
    dtype: str
    values: NDArray[Any]

    @property
    def width(self) -> int:
        return 1 if self.values.ndim == 1 else self.values.shape[1]


def series_limit(names: Sequence[str]) -> int:
    """Steps in one page of series."""
    return max(1000, PAGE_BYTES // (8 * (2 + len(names))))


def encode_series(run: str, page: RawPage) -> bytes:
    """A page of series as frames: step, time and a column ``<name>.value`` for each; MISSING where none was given."""
    parts = [_Part("step", "i8", page.steps), _Part("time", "f8", page.times)]
    parts += [_Part(f"{name}.value", "f8", page.values[:, at]) for at, name in enumerate(page.names)]
    return b"".join(_encode({"run": run, "series": page.names, "next": page.next}, parts))


async def layer_page(queries: Queries, view: View, first: int, last: int) -> tuple[RawRows | None, int | None]:
    """The first rows from ``first`` on, and where to go on."""
    pieces = cast(AsyncGenerator[tuple[int, int, RawRows]], queries.pieces(view, first, last))
    async with queries.heavy, aclosing(pieces):
        async for _, end, rows in pieces:
            if len(rows.steps):
                return rows, end + 1 if end < last else None
    return None, None


def encode_layers(run: str, rows: RawRows | None, names: list[str], then: int | None) -> bytes:
    """A page of layers as frames: step, time, the layers' norms, and a bitmap of those that are absent."""
    about = {"run": run, "metric": LAYER_METRIC, "layers": len(names), "next": then}
    if rows is None:
        return b"".join(_encode(about, [_Part("step", "i8", np.zeros(0, np.int64))]))
    values, present = rows.layers(names)
    parts = [_Part("step", "i8", rows.steps), _Part("time", "f8", rows.times())]
    if names:
        parts.append(_Part(f"{LAYER_METRIC}.value", "f8" if values.dtype.itemsize == 8 else "f4", values))
        parts.append(_Part("absent", "u1", np.packbits(~present, axis=1, bitorder="little")))
    return b"".join(_encode(about, parts))


def _encode(about: dict[str, Any], parts: Sequence[_Part]) -> Iterator[bytes]:
    schema = [Column(part.name, part.dtype, part.width) for part in parts]
    header = {**about, "columns": [column.as_json() for column in schema]}
    per_row = sum(column.width * frames.ITEM_SIZES[column.dtype] for column in schema)
    overhead = len(frames.encode(Kind.SNAPSHOT, header)) + _HEADER_ROOM + 8 * len(schema)
    most = max(1, (frames.MAX_FRAME - overhead) // per_row)
    count = len(parts[0].values)
    for start in range(0, max(1, count), most):
        rows = slice(start, min(count, start + most))
        columns = [np.ascontiguousarray(part.values[rows], DTYPES[part.dtype]).tobytes() for part in parts]
        yield frames.encode(Kind.SNAPSHOT, {**header, "rows": rows.stop - rows.start}, columns)
