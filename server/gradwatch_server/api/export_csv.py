"""An export as CSV: one line per row, nothing where nothing came, every number with all its digits."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from itertools import chain, repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..store.decode import MISSING_BITS
from ..store.queries import RawRows
from .export_rows import ExportRows

# A cell that begins so is run as a formula by spreadsheets.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_CELLS: Final = 100_000  # written at a time: a tenth of a second, some megabytes
_BYTES_PER_CELL: Final = 20


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(_FORMULA) else text


def estimated_bytes(rows: ExportRows) -> int:
    """About how long the file will be."""
    return _BYTES_PER_CELL * (rows.most + 1) * len(rows.head())


async def lines(rows: ExportRows) -> AsyncIterator[bytes]:
    """The file in parts."""
    head = rows.head()
    yield _written([[guarded(name) for name in head]])
    at_once = max(1, _CELLS // len(head))
    async for piece in rows.pieces():
        cells = await asyncio.to_thread(_Cells, piece, rows.names, rows.layer_names)
        for start in range(0, len(piece.steps), at_once):
            yield await asyncio.to_thread(cells.written, slice(start, start + at_once))


class _Cells:
    """One piece as texts."""

    def __init__(self, piece: RawRows, names: list[str], layers: list[str]) -> None:
        self._key = (piece.stream.attempt, piece.stream.rank)
        self._steps, self._times = piece.steps, piece.times()
        self._scalars = piece.scalars(names)
        self._norms, self._present = piece.layers(layers)

    def written(self, part: slice) -> bytes:
        """The lines of some rows."""
        times, scalars = self._times[part], self._scalars[part]
        columns = zip(
            repeat(self._key),
            self._steps[part].tolist(),
            _texts(times[:, None], ~np.isnan(times)[:, None]),
            _texts(scalars, scalars.view(np.uint64) != MISSING_BITS),
            _texts(self._norms[part], self._present[part]),
        )
        return _written(chain(key, (step,), time, values, norms) for key, step, time, values, norms in columns)


def _texts(values: NDArray[Any], present: NDArray[np.bool_]) -> list[list[str]]:
    """Rows of cells; float32 norms are written as the doubles that they are."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        cells = [list(map(repr, row)) for row in values.astype(np.float64, copy=False).tolist()]
    for row, column in np.argwhere(~present).tolist():
        cells[row][column] = ""
    return cells


def _written(table: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(table)
    return text.getvalue().encode()
