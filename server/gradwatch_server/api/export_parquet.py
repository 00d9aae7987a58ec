"""An export as Parquet: one column per series and layer, bit for bit, null where nothing came."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..store.decode import MISSING_BITS
from ..store.queries import RawRows
from .dependencies import bad_argument
from .export_rows import KEYS, ExportRows

# Of values in one row group. Small ones keep memory and the reader's first look small, but pyarrow keeps some 900 bytes
# for every column of every group until the file ends, and readers pay about 50 us for each.
_GROUP_BYTES: Final = 16 << 20
_MOST_GROUP_BYTES: Final = 64 << 20
_CHUNKS: Final = 200_000  # columns x groups, from which on groups grow
_MOST_CHUNKS: Final = 1_000_000
_PART: Final = 1 << 20  # bytes handed on at a time
_SHARE: Final = 0.85  # of the values' bytes that is left when they are compressed


def estimated_bytes(rows: ExportRows) -> int:
    """About how long the file will be. Raises 422 where it would take more memory than one file is worth."""
    columns = len(rows.head())
    if columns * -(-rows.most // _rows_in_group(rows)) > _MOST_CHUNKS:
        raise bad_argument(
            f"{rows.most} steps of {len(rows.layers)} layers are too many for one Parquet file: "
            "export ranges of steps by 'first' and 'last', or some layers by 'match'"
        )
    return int(_SHARE * rows.most * _row_bytes(rows)) + 200 * columns


def _row_bytes(rows: ExportRows) -> int:
    return 4 * len(rows.layers) + 8 * (len(KEYS) + len(rows.names))


def _rows_in_group(rows: ExportRows) -> int:
    size = _row_bytes(rows)
    wanted = max(_GROUP_BYTES // size, rows.most * len(rows.head()) // _CHUNKS)
    return max(1, min(wanted, _MOST_GROUP_BYTES // size, rows.most))


async def parts(rows: ExportRows, run: dict[str, Any]) -> AsyncIterator[bytes]:
    """The file in parts. A row group is encoded at a time, in a thread; the next one when this one is taken."""
    group = _Group(rows, _rows_in_group(rows))
    file = await asyncio.to_thread(_File, rows, run)
    async for piece in rows.pieces():
        columns = await asyncio.to_thread(_Columns, piece, rows)
        while columns.taken < columns.count:
            await asyncio.to_thread(group.take, columns)
            if group.is_full:
                for part in await asyncio.to_thread(file.write, group):
                    yield part
    for part in await asyncio.to_thread(file.end, group):
        yield part


class _Columns:
    """One piece, as columns x steps; ``taken`` of its steps stand in a group."""

    def __init__(self, piece: RawRows, rows: ExportRows) -> None:
        self.count, self.taken = len(piece.steps), 0
        times, scalars = piece.times(), piece.scalars(rows.names)
        norms, present = piece.layers(rows.layer_names)
        if norms.dtype.itemsize > rows.float_type.itemsize:
            raise ValueError("the run has begun to send its norms as float64 while they were exported as float32")
        whole = (np.full(self.count, number, np.int64) for number in (piece.stream.attempt, piece.stream.rank))
        self.keys = np.stack([*whole, piece.steps])
        self.scalars = np.vstack([times[None], scalars.T])
        self.is_missing = np.vstack([np.isnan(times)[None], (scalars.view(np.uint64) == MISSING_BITS).T])
        self.norms, self.is_absent = norms.T, ~present.T


class _Group:
    """Room for the rows of one row group, column by column."""

    def __init__(self, rows: ExportRows, most: int) -> None:
        self.count, self._most = 0, most
        scalars, layers = (1 + len(rows.names), most), (len(rows.layers), most)
        self._values = {
            "keys": np.empty((3, most), np.int64),
            "scalars": np.empty(scalars, np.float64),
            "is_missing": np.empty(scalars, np.bool_),
            "norms": np.empty(layers, rows.float_type),
            "is_absent": np.empty(layers, np.bool_),
        }

    @property
    def is_full(self) -> bool:
        return self.count == self._most

    def take(self, columns: _Columns) -> None:
        """Copy as many rows as there is room for."""
        rows = min(self._most - self.count, columns.count - columns.taken)
        here, there = slice(self.count, self.count + rows), slice(columns.taken, columns.taken + rows)
        for name, room in self._values.items():
            room[:, here] = getattr(columns, name)[:, there]
        self.count += rows
        columns.taken += rows

    def columns(self) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_] | None]]:
        """Every column of the file, and where it is null; they hold until the next row is taken."""
        values = {name: room[:, : self.count] for name, room in self._values.items()}
        attempt, rank, step = values["keys"]
        yield from ((attempt.astype(np.int32), None), (rank, None), (step, None))
        yield from zip(values["scalars"], values["is_missing"], strict=True)
        yield from zip(values["norms"], values["is_absent"], strict=True)


class _File:
    """pyarrow at work; what it writes is handed on and never kept."""

    def __init__(self, rows: ExportRows, run: dict[str, Any]) -> None:
        import pyarrow
        from pyarrow import parquet

        self._arrow = pyarrow
        self._sink = _Sink()
        self._schema = _schema(pyarrow, rows, run)
        norms = self._schema.names[len(KEYS) + len(rows.names) :]
        self._writer = parquet.ParquetWriter(
            self._sink,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,  # hardly any two norms are the same
            use_byte_stream_split=norms,
            write_statistics=list(KEYS),
        )

    def write(self, group: _Group) -> Iterator[bytes]:
        """The group's bytes; the group is empty again."""
        arrays = [self._arrow.array(values, mask=nulls) for values, nulls in group.columns()]
        table = self._arrow.Table.from_arrays(arrays, schema=self._schema)
        self._writer.write_table(table, row_group_size=group.count)
        group.count = 0
        return self._sink.taken()

    def end(self, group: _Group) -> Iterator[bytes]:
        """The last group, and the footer that makes it a file."""
        if group.count:
            self.write(group)
        self._writer.close()
        return self._sink.taken()


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> Iterator[bytes]:
        """What was written, in parts of about ``_PART`` bytes."""
        parts, self._parts = self._parts, []
        joined, size = list[bytes](), 0
        for part in parts:
            joined.append(part)
            size += len(part)
            if size >= _PART:
                yield b"".join(joined)
                joined, size = [], 0
        yield b"".join(joined)


def _schema(arrow: Any, rows: ExportRows, run: dict[str, Any]) -> Any:
    head = rows.head()
    first = len(KEYS) + len(rows.names)
    norm = arrow.float64() if rows.float_type == np.float64 else arrow.float32()
    types = [arrow.int32(), arrow.int64(), arrow.int64(), *[arrow.float64()] * (first - 3), *[norm] * len(rows.layers)]
    fields = [arrow.field(name, types[at], nullable=at >= 3) for at, name in enumerate(head)]
    layers = [
        {"column": column, "name": layer.name, "shape": layer.shape, "numel": layer.numel, "order": layer.order}
        for column, layer in zip(head[first:], rows.layers, strict=True)
    ]
    about = {name: run[name] for name in ("id", "project", "name", "group", "tags", "started_at")}
    said = {"run": about, "time": "seconds since 1970", "layers": layers}
    return arrow.schema(fields, {"gradwatch": json.dumps(said)})
