"""What happened in a run, step by step."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from ..store import runs
from .dependencies import RunDep, StoreDep

router = APIRouter(prefix="/api/runs/{run}")

Kind = Literal["spike", "nonfinite", "restart", "control", "user", "hook"]


@router.get("/events")
async def get_events(
    run: RunDep,
    store: StoreDep,
    kind: Kind | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 2_000,
) -> dict[str, Any]:
    """Events in step order."""
    async with store.engines.read.connect() as connection:
        return {"events": await runs.list_events(connection, run["id"], kind, limit)}
