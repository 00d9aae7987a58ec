"""Scalar series of a run: reduced to columns, or raw."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from ..store.queries import MOST_COLUMNS, choose_width
from ..store.store import Store
from ..store.views import View
from . import raw_frames
from .dependencies import RangeDep, StoreDep, ViewDep, bad_argument
from .numbers import described, listed_raw

router = APIRouter(prefix="/api/runs/{run}")

RAW_PAGE: Final = 5_000  # steps in one raw answer


@router.get("/series")
async def get_series(
    request: Request,
    store: StoreDep,
    view: ViewDep,
    steps: RangeDep,
    names: Annotated[list[str] | None, Query()] = None,
    columns: Annotated[int, Query(ge=0, le=MOST_COLUMNS)] = 1000,
) -> Any:
    """Series reduced to at most ``columns`` columns; with ``columns=0`` every step by itself, in pages.

    Raw pages are frames where the request accepts those, else JSON.
    """
    low, high = steps.within(view)
    wanted = await _names(store, view, names)
    if columns == 0 and raw_frames.MEDIA_TYPE in request.headers.get("accept", ""):
        page = await store.queries.raw(view, low, high, wanted, raw_frames.series_limit(wanted))
        body = await asyncio.to_thread(raw_frames.encode_series, view.run, page)
        return Response(body, media_type=raw_frames.MEDIA_TYPE)
    if columns == 0:
        page = await store.queries.raw(view, low, high, wanted, RAW_PAGE)
        series = {name: {"value": listed_raw(page.values[:, at])} for at, name in enumerate(wanted)}
        return {"step": page.steps.tolist(), "series": series, "next": page.next}
    width = choose_width(low, high, columns, 0)
    found = await store.queries.reduce(view, low, high, width, names=wanted)
    edges = zip(found.first.tolist(), found.last.tolist(), strict=True)
    return {
        "width": width,
        "columns": [{"first": start, "last": end} for start, end in edges],
        "series": {name: described(found.scalars, at) for at, name in enumerate(wanted)},
    }


async def _names(store: Store, view: View, names: list[str] | None) -> list[str]:
    known = await store.queries.series_names(view)
    if names is None:
        return known
    # Names may hold commas themselves, so a whole that is known is never cut.
    wanted = [part for name in names for part in ([name] if name in known else name.split(",")) if part]
    unknown = [name for name in wanted if name not in known]
    if unknown and known:
        raise bad_argument(f"'names' holds {unknown[0][:80]!r}; this run has {', '.join(known)[:500]}")
    return list(dict.fromkeys(wanted))
