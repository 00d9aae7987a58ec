"""Layer metrics of a run as a matrix over columns."""

from __future__ import annotations

import asyncio
import dataclasses
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from gradwatch.frames import Kind
from starlette.responses import JSONResponse

from ..snapshots import encode_columns
from ..store.queries import MOST_COLUMNS, Queries, Reduced, choose_width
from ..store.views import View
from . import raw_frames
from .dependencies import RangeDep, StoreDep, ViewDep, bad_argument
from .numbers import listed

router = APIRouter(prefix="/api/runs/{run}")

Metric = Literal["grad_norm", "weight_norm", "update_ratio", "layer_coefficient"]


@router.get("/layers")
async def get_layers(
    request: Request,
    store: StoreDep,
    view: ViewDep,
    steps: RangeDep,
    metric: Metric = "grad_norm",
    columns: Annotated[int, Query(ge=0, le=MOST_COLUMNS)] = 1000,
    match: Annotated[str | None, Query(max_length=1024)] = None,
    by: Literal["layer", "module"] = "layer",
) -> Response:
    """Layers (or modules) x columns: a SNAPSHOT frame, or JSON where the request accepts that.

    All metrics but ``grad_norm`` are sampled: in columns without a sample their count is 0. With ``columns=0``
    ``grad_norm`` of every layer and step by itself, as frames, in pages.
    """
    if columns == 0 and (metric, by) != ("grad_norm", "layer"):
        raise bad_argument("'columns' must be at least 1: only the grad_norm of layers is recorded at every step")
    if metric != "grad_norm" and by == "module":
        raise bad_argument(f"'by' must be layer for {metric}: layers are sampled one by one, at different steps")
    low, high = steps.within(view)
    if columns == 0:
        return await _raw(store.queries, view, (low, high), match)
    count = len(await store.queries.layers(view.run))
    thinned_to = view.thinned_to if metric == "grad_norm" else 0
    width = choose_width(low, high, columns, count, thinned_to)
    if metric == "grad_norm":
        found = await store.queries.reduce(view, low, high, width, by, names=[])
    else:
        found = await store.queries.sampled(view, metric, low, high, width)
    if match is not None:
        found = _matching(found, match)
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse(await asyncio.to_thread(_as_json, found))
    about = {"request": 0, "run": view.run, "last_step": view.last_step, "first": low, "last": high}
    about |= {"metric": metric, "truncated": found.truncated}
    body = await asyncio.to_thread(lambda: b"".join(encode_columns(Kind.SNAPSHOT, about, found)))
    return Response(body, media_type="application/octet-stream")


async def _raw(queries: Queries, view: View, steps: tuple[int, int], match: str | None) -> Response:
    names = [layer.name for layer in await queries.layers(view.run) if match is None or fnmatchcase(layer.name, match)]
    rows, then = await raw_frames.layer_page(queries, view, *steps)
    body = await asyncio.to_thread(raw_frames.encode_layers, view.run, rows, names, then)
    return Response(body, media_type=raw_frames.MEDIA_TYPE)


def _matching(found: Reduced, pattern: str) -> Reduced:
    assert found.layers is not None
    chosen = [at for at, name in enumerate(found.layer_names) if fnmatchcase(name, pattern)]
    names = [found.layer_names[at] for at in chosen]
    return dataclasses.replace(found, layer_names=names, layers=found.layers.series(chosen))


def _as_json(found: Reduced) -> dict[str, Any]:
    layers = found.layers
    assert layers is not None
    empty = layers.count == 0
    edges = zip(found.first.tolist(), found.last.tolist(), strict=True)
    return {
        "metric": found.metric,
        "truncated": found.truncated,
        "width": found.width,
        "columns": [{"first": start, "last": end} for start, end in edges],
        "layers": found.layer_names,
        "min": listed(layers.minimum, empty),
        "max": listed(layers.maximum, empty),
        "mean": listed(layers.mean(), empty),
        "nonfinite": layers.nonfinite.tolist(),
        "count": layers.count.tolist(),
    }
