"""Runs: list, look, rename, delete."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ..changes import RunChange
from ..store import deletion, runs
from ..store.modules import modules_of
from .dependencies import RunDep, StoreDep, bad_argument
from .sparkline import Sparklines

router = APIRouter(prefix="/api/runs")

Text = Annotated[str, Field(max_length=1024, pattern=r"^[^\x00]*$")]
State = Literal["running", "finished", "failed", "lost"]


class Changes(BaseModel):
    """What may be changed on a run."""

    model_config = ConfigDict(extra="forbid")

    name: Text | None = None
    group: Text | None = None
    tags: Annotated[list[Text], Field(max_length=100)] | None = None


@router.get("")
async def list_runs(
    request: Request,
    store: StoreDep,
    project: str | None = None,
    state: State | None = None,
    q: Annotated[str | None, Query(max_length=1024)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
) -> dict[str, Any]:
    """A page of runs, newest first."""
    if any("\0" in (text or "") for text in (project, q)):
        raise bad_argument("the search holds a NUL character")
    async with store.engines.read.connect() as connection:
        found, total = await runs.list_runs(connection, runs.Filter(project, state, q, limit, offset))
    sparklines: Sparklines = request.app.state.sparklines
    return {"runs": [run | {"sparkline": await sparklines.of(run)} for run in found], "total": total}


@router.get("/{run}")
async def get_run(run: RunDep, store: StoreDep, request: Request) -> dict[str, Any]:
    """One run with all that is known about it."""
    layers = await store.queries.layers(run["id"])
    modules = modules_of([layer.name for layer in layers])
    async with store.engines.read.connect() as connection:
        about = await runs.get_about(connection, run["id"])
        attempts = await runs.get_attempts(connection, run["id"])
    sparklines: Sparklines = request.app.state.sparklines
    return {
        **about,
        **run,
        "sparkline": await sparklines.of(run),
        "layers": [
            {"index": x.index, "name": x.name, "shape": x.shape, "numel": x.numel, "order": x.order} for x in layers
        ],
        "modules": [
            {"name": name, "layers": members} for name, members in zip(modules.names, modules.members(), strict=True)
        ],
        "attempts": attempts,
    }


@router.patch("/{run}")
async def change_run(run: RunDep, changes: Changes, store: StoreDep) -> dict[str, Any]:
    """Change name, tags or group; what is not named stays."""
    given = changes.model_dump(exclude_unset=True)
    if any(given.get(name, "") is None for name in ("name", "tags")) or given.get("name") == "":
        raise bad_argument("a run needs a 'name', and 'tags' is a list")
    await store.writer.run(lambda connection: runs.change_run(connection, run["id"], given))
    store.publish({run["id"]: RunChange(run["id"], state=True)})
    return run | given


@router.delete("/{run}", status_code=204)
async def delete_run(run: RunDep, store: StoreDep) -> Response:
    """Delete a run for good; a training that still sends is told to stop."""
    await deletion.delete_run(store, run["id"], time.time())
    return Response(status_code=204)
