"""Alerts: list and acknowledge."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Query

from ..changes import RunChange
from ..store import runs
from .dependencies import StoreDep

router = APIRouter(prefix="/api/alerts")


@router.get("")
async def get_alerts(
    store: StoreDep,
    run: Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00]*$")] = None,
    state: Literal["open", "acknowledged"] | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> dict[str, Any]:
    """Alerts, newest first."""
    async with store.engines.read.connect() as connection:
        return {"alerts": await runs.list_alerts(connection, run, state, limit)}


@router.post("/{alert}/ack")
async def acknowledge(store: StoreDep, alert: Annotated[int, Path(ge=1, le=2**53)]) -> dict[str, Any]:
    """Say that somebody has seen the alert."""
    found = await store.writer.run(lambda connection: runs.acknowledge(connection, alert, time.time()))
    if found is None:
        raise HTTPException(404, "there is no such alert: GET api/alerts lists those there are")
    store.publish({found["run"]: RunChange(found["run"], state=True, alerts=[found])})
    return found
