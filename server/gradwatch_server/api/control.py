"""What people ask of a running training. Only where its own script allows that; every command is written down."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any, Final, Literal, cast

from fastapi import APIRouter, Depends, HTTPException, Request
from gradwatch.frames import MAX_COUNT
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from ..changes import RunChange
from ..commands import Commands
from ..store import runs
from .dependencies import RunDep, StoreDep

router = APIRouter(prefix="/api/runs/{run}")


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SetThreshold(_Asked):
    """Clip by another threshold from now on. Never to clip, give a number that no norm reaches: infinity is refused,
    as under some strategies it is no threshold at all."""

    command: Literal["set_threshold"]
    value: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]

    def __str__(self) -> str:
        return f"threshold {self.value:g}"


class Stop(_Asked):
    """End the training."""

    command: Literal["stop"]

    def __str__(self) -> str:
        return "the end of the training"


class Checkpoint(_Asked):
    """Save what the training has learned, as its script knows how to."""

    command: Literal["checkpoint"]

    def __str__(self) -> str:
        return "a checkpoint"


class ProbeLandscape(_Asked):
    """Compute a surface around the weights as they are now."""

    command: Literal["probe_landscape"]
    plane: Literal["update", "trajectory", "random"]
    levels: Literal[5, 9, 17, 33] = 17  # points a side of the finest grid
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)] = 0

    def __str__(self) -> str:
        return f"a surface over the {self.plane} plane, {self.levels} points a side, seed {self.seed}"


# What to write where a run does not take one of them.
COMMANDS: Final[dict[str, str]] = {
    "set_threshold": "it only measures: its script has it clip by watch(..., clip=1.0, control=True)",
    "stop": "its hook is older than this command: upgrade gradwatch where it trains",
    "checkpoint": "its script says how by watch(..., control=True, on_checkpoint=save), a function of the monitor",
    "probe_landscape": "its script gives the loss by watch(..., control=True, probe=...), a function of the model",
}


def _command(body: Any) -> str | None:
    named = body.get("command") if isinstance(body, dict) else None
    return named if isinstance(named, str) else None


Wanted = Annotated[
    Annotated[SetThreshold, Tag("set_threshold")]
    | Annotated[Stop, Tag("stop")]
    | Annotated[Checkpoint, Tag("checkpoint")]
    | Annotated[ProbeLandscape, Tag("probe_landscape")],
    Discriminator(
        _command,
        custom_error_type="command",
        custom_error_message=f"it is an object whose 'command' is one of {', '.join(COMMANDS)}",
    ),
]


def _commands(request: Request) -> Commands:
    return cast(Commands, request.app.state.commands)


@router.post("/control", status_code=202)
async def control(
    run: RunDep,
    wanted: Wanted,
    request: Request,
    store: StoreDep,
    commands: Annotated[Commands, Depends(_commands)],
) -> dict[str, Any]:
    """Send a command on its way; what the training makes of it shows in what it sends."""
    async with store.engines.read.connect() as connection:
        about = await runs.get_about(connection, run["id"])
    if about["control"] is not True:
        raise HTTPException(409, "this run takes no commands: its script allows them by watch(..., control=True)")
    if wanted.command not in about["commands"]:
        raise HTTPException(409, f"this run does not take '{wanted.command}': {COMMANDS[wanted.command]}")
    if run["state"] in ("finished", "failed"):
        raise HTTPException(409, f"this run has {'ended' if run['state'] == 'finished' else 'failed'} already")
    if not commands.reaches(run["id"], run["attempt"]):
        raise HTTPException(409, "the training is not connected to this server now: try again when it sends steps")
    number, asker = secrets.token_hex(8), request.client.host if request.client else "someone"
    event = _event(run, wanted, number, asker)
    # Written down first: a command that nobody can account for must not reach a training.
    await store.writer.run(lambda connection: runs.add_event(connection, event))
    store.publish({run["id"]: RunChange(run["id"], events=[event])})
    if not commands.send(run["id"], run["attempt"], {"id": number, "by": asker, **wanted.model_dump()}):
        raise HTTPException(409, "the training's connection was lost just now: try again when it sends steps")
    return {"id": number}


def _event(run: dict[str, Any], wanted: Wanted, number: str, asker: str) -> dict[str, Any]:
    return {
        "key": f"control:{number}",
        "run": run["id"],
        "attempt": run["attempt"],
        "step": run["last_step"] or 0,
        "time": time.time(),
        "kind": "control",
        "name": wanted.command,
        "text": f"{wanted}, asked for from {asker}",
    }
