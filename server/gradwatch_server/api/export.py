"""A run's raw steps as a CSV file, streamed."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Any, Final, Literal

import numpy as np
from fastapi import APIRouter
from starlette.responses import StreamingResponse

from ..store.decode import LAYER_METRIC, MISSING_BITS
from ..store.queries import Queries, RawRows
from ..store.views import View
from .dependencies import RangeDep, RunDep, StoreDep, ViewDep

router = APIRouter(prefix="/api/runs/{run}")

# A cell that begins so is run as a formula by spreadsheets.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


@router.get("/export")
async def export(
    run: RunDep,
    store: StoreDep,
    view: ViewDep,
    steps: RangeDep,
    format: Literal["csv"] = "csv",
) -> StreamingResponse:
    """One line per step: time, all series, the norm of every layer."""
    low, high = steps.within(view)
    names = await store.queries.series_names(view)
    layers = [layer.name for layer in await store.queries.layers(view.run)]
    lines = _lines(store.queries, view, (low, high), names, layers)
    headers = {"content-disposition": f'attachment; filename="{run["id"]}.csv"'}
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(_FORMULA) else text


async def _lines(
    queries: Queries, view: View, steps: tuple[int, int], names: list[str], layers: list[str]
) -> AsyncIterator[bytes]:
    head = ["attempt", "rank", "step", "time", *names, *(f"{LAYER_METRIC}/{name}" for name in layers)]
    yield _written([[guarded(name) for name in head]])
    async for _, _, rows in queries.pieces(view, *steps):
        for start in range(0, len(rows.steps), 256):
            yield _written(_table(rows, names, layers, slice(start, start + 256)))


def _written(lines: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()


def _table(rows: RawRows, names: list[str], layers: list[str], part: slice) -> list[list[Any]]:
    steps = rows.steps[part]
    values = rows.scalars(names)[part]
    norms, present = rows.layers(layers)
    times = rows.times()[part]
    missing = values.view(np.uint64) == MISSING_BITS
    lines = []
    for at, step in enumerate(steps.tolist()):
        line = [rows.stream.attempt, rows.stream.rank, step, _cell(times[at], bool(np.isnan(times[at])))]
        line += [_cell(value, gone) for value, gone in zip(values[at].tolist(), missing[at].tolist(), strict=True)]
        row = part.start + at
        line += [_cell(v, not t) for v, t in zip(norms[row].tolist(), present[row].tolist(), strict=True)]
        lines.append(line)
    return lines


def _cell(value: float, missing: bool) -> str:
    return "" if missing else repr(float(value))
