"""What people ask of a running training. Only where its own script allows that; every command is written down."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Depends, HTTPException, Request
from gradwatch.frames import MAX_COUNT
from pydantic import BaseModel, ConfigDict, Field

from ..changes import RunChange
from ..commands import Commands
from ..store import runs
from .dependencies import RunDep, StoreDep

router = APIRouter(prefix="/api/runs/{run}")


class ProbeLandscape(BaseModel):
    """Compute a surface around the weights as they are now."""

    model_config = ConfigDict(extra="forbid")

    command: Literal["probe_landscape"]
    plane: Literal["update", "trajectory", "random"]
    levels: Literal[5, 9, 17, 33] = 17  # points a side of the finest grid
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)] = 0


def _commands(request: Request) -> Commands:
    return cast(Commands, request.app.state.commands)


@router.post("/control", status_code=202)
async def control(
    run: RunDep,
    wanted: ProbeLandscape,
    request: Request,
    store: StoreDep,
    commands: Annotated[Commands, Depends(_commands)],
) -> dict[str, Any]:
    """Send a command on its way; what the training makes of it shows in what it sends."""
    async with store.engines.read.connect() as connection:
        about = await runs.get_about(connection, run["id"])
    if about["control"] is not True:
        raise HTTPException(409, "this run takes no commands: its script allows them by watch(..., control=True)")
    if run["state"] in ("finished", "failed"):
        raise HTTPException(409, f"this run has {'ended' if run['state'] == 'finished' else 'failed'} already")
    if not commands.reaches(run["id"], run["attempt"]):
        raise HTTPException(409, "the training is not connected to this server now: try again when it sends steps")
    number = secrets.token_hex(8)
    event = _event(run, wanted, number, request)
    # Written down first: a command that nobody can account for must not reach a training.
    await store.writer.run(lambda connection: runs.add_event(connection, event))
    store.publish({run["id"]: RunChange(run["id"], events=[event])})
    if not commands.send(run["id"], run["attempt"], {"id": number, **wanted.model_dump()}):
        raise HTTPException(409, "the training's connection was lost just now: try again when it sends steps")
    return {"id": number}


def _event(run: dict[str, Any], wanted: ProbeLandscape, number: str, request: Request) -> dict[str, Any]:
    who = f" from {request.client.host}" if request.client else ""
    text = f"a surface over the {wanted.plane} plane, {wanted.levels} points a side, seed {wanted.seed}, asked for{who}"
    return {
        "key": f"control:{number}",
        "run": run["id"],
        "attempt": run["attempt"],
        "step": run["last_step"] or 0,
        "time": time.time(),
        "kind": "control",
        "name": wanted.command,
        "text": text,
    }
