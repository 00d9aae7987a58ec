"""How the sizes of a layer's gradients are spread, over columns."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from ..store.queries import choose_width
from ..store.sample_frames import LOWEST
from ..store.sampling import Histograms
from .dependencies import RangeDep, StoreDep, ViewDep, bad_argument

router = APIRouter(prefix="/api/runs/{run}")

MOST_COLUMNS: Final = 1_000  # each holds 66 counts


@router.get("/histograms")
async def get_histograms(
    store: StoreDep,
    view: ViewDep,
    steps: RangeDep,
    layer: Annotated[str, Query(max_length=1024)],
    columns: Annotated[int, Query(ge=1, le=MOST_COLUMNS)] = 100,
) -> dict[str, Any]:
    """Histograms of log2 |gradient|, added up over each column; all zero where none was sampled."""
    if all(known.name != layer for known in await store.queries.layers(view.run)):
        raise bad_argument(f"'layer' is {layer[:80]!r}, and no layer of this run: GET api/runs/{view.run} lists them")
    low, high = steps.within(view)
    width = choose_width(low, high, columns, 0)
    found = await store.queries.histograms(view, layer, low, high, width)
    return await asyncio.to_thread(_as_json, layer, found)


def _as_json(layer: str, found: Histograms) -> dict[str, Any]:
    edges = zip(found.first.tolist(), found.last.tolist(), strict=True)
    return {
        "layer": layer,
        "lowest": LOWEST,
        "width": found.width,
        "columns": [{"first": start, "last": end} for start, end in edges],
        "samples": found.samples.tolist(),
        "elements": found.elements.tolist(),
        "zero": found.zero.tolist(),
        "nonfinite": found.nonfinite.tolist(),
        "counts": found.counts.tolist(),
        "truncated": found.truncated,
    }
