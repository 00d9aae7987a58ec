"""A run's raw steps as a file, streamed: CSV, or Parquet where pyarrow is installed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import Annotated, Final, Literal

from fastapi import APIRouter, HTTPException, Query
from starlette.responses import StreamingResponse

from ..store import runs
from ..store.store import Store
from . import export_csv, export_parquet
from .dependencies import RangeDep, RunDep, StoreDep, ViewDep
from .export_rows import ExportRows

router = APIRouter(prefix="/api/runs/{run}")

SIZE_HEADER: Final = "gradwatch-estimated-bytes"  # about how many will follow, for who shows how far it is
_TYPES: Final = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


class ExportBroken(Exception):
    """The rest of the file cannot be made; the connection is cut, so that nobody takes it for a whole one."""


@router.get("/export")
async def export(
    run: RunDep,
    store: StoreDep,
    view: ViewDep,
    steps: RangeDep,
    format: Literal["csv", "parquet"] = "csv",
    match: Annotated[str | None, Query(max_length=1024)] = None,
) -> StreamingResponse:
    """One row per step up to the newest one of now: time, all series, the norm of every layer that ``match`` names."""
    if format == "parquet" and find_spec("pyarrow") is None:
        raise HTTPException(501, "Parquet needs pyarrow beside the server: pip install 'gradwatch[export]'")
    rows = await ExportRows.of(store, view, steps.within(view), match)
    if format == "csv":
        size, parts = export_csv.estimated_bytes(rows), export_csv.lines(rows)
    else:
        size, parts = export_parquet.estimated_bytes(rows), export_parquet.parts(rows, run)
    headers = {"content-disposition": f'attachment; filename="{run["id"]}.{format}"', SIZE_HEADER: str(size)}
    return StreamingResponse(_whole(store, run["id"], parts), media_type=_TYPES[format], headers=headers)


async def _whole(store: Store, run: str, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """``parts``, of a run that is there to the end: of one that is being deleted, any number of steps may be gone."""
    async for part in parts:
        yield part
    async with store.engines.read.connect() as connection:
        if await runs.get_run(connection, run) is None:
            raise ExportBroken("the run was deleted while it was exported")
