"""Probes as the outside gets them: worked out and spelled. Nothing here reads anything."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..landscape import random_walk, surface, tape, trajectory, verdict
from ..landscape.tape import Line
from ..landscape.thinning import thinned
from ..store.landscape_frames import ProbeRows
from .numbers import listed, spelled

MOST_EVENTS: Final = 200  # listed one by one
MOST_PATH: Final = 1_000  # points of the path over a surface

Pieces = Sequence[ProbeRows]


@dataclass(frozen=True, slots=True)
class TapeFrames:
    """Frames of lines: every ``every``-th of ``count``; and each attempt's newest summary."""

    pieces: Pieces
    count: int
    every: int
    newest: Pieces


@dataclass(frozen=True, slots=True)
class VerdictFrames:
    """Frames of verdicts; at which attempts and steps every ``every``-th is; and the reason why there are none."""

    pieces: Pieces
    every: int
    even: Collection[tuple[int, int]]
    reasons: Pieces


@dataclass(frozen=True, slots=True)
class SurfaceFrames:
    """The newest planes with the cells computed of each, and all frames of the one surface that is shown."""

    planes: Pieces
    computed: Mapping[tuple[int, int], int]
    pieces: Pieces


@dataclass(frozen=True, slots=True)
class SnapshotFrames:
    """Frames of a path; ``total``: the snapshots there are, where not all frames were read."""

    pieces: Pieces
    until: Mapping[int, int]
    total: int | None
    most: int


@dataclass(frozen=True, slots=True)
class Found:
    """What was read for one answer."""

    tape: TapeFrames
    verdict: VerdictFrames
    surfaces: SurfaceFrames
    trajectory: SnapshotFrames


def as_json(found: Found) -> dict[str, Any]:
    """The whole answer."""
    lines = tape.lines(found.tape.pieces)
    return {
        "tape": {
            "alpha": list(tape.ALPHAS),
            "every": found.tape.every,
            "count": max(found.tape.count, len(lines)),
            "probes": [_probe(line) for line in lines],
        },
        "line": _line(lines[-1]) if lines else None,
        "verdict": _verdict(found.verdict),
        "surfaces": _surfaces(found.surfaces),
        "surface": _surface(found.surfaces.pieces),
        "trajectory": _trajectory(found.trajectory),
        "cost": dict(zip(("seconds", "share"), map(_number, tape.cost(found.tape.newest)), strict=True)),
    }


def _number(value: float | None) -> float | str | None:
    return None if value is None else spelled(value)


def _probe(line: Line) -> dict[str, Any]:
    told = ("best_alpha", "critical_low", "critical_high", "stability_threshold", "learning_rate", "update_norm")
    return {
        "attempt": line.attempt,
        "probe": line.probe,
        "step": line.step,
        "loss": listed(*line.on_grid()),
        "base": _number(line.base),
        "taken": _number(line.taken),
        **{name: _number(line.told(name)) for name in told},
        "critical_alpha": _number(line.critical_alpha),
        "sharpness": _number(line.sharpness),
        "done": line.summary is not None,
    }


def _line(line: Line) -> dict[str, Any]:
    alpha, loss = line.curve()
    found = {"attempt": line.attempt, "probe": line.probe, "step": line.step, "about": dict(line.about)}
    return found | {"alpha": alpha.tolist(), "loss": listed(loss)}


def _verdict(found: VerdictFrames) -> dict[str, Any]:
    events = verdict.events(found.pieces)
    whole = verdict.overall([event for event in events if (event.attempt, event.step) in found.even])
    shown = [
        {
            "attempt": event.attempt,
            "probe": event.probe,
            "step": event.step,
            "difference": spelled(event.difference),
            "standard_error": _number(event.standard_error),
            "batches": event.batches,
            "outcome": event.outcome,
        }
        for event in events[-MOST_EVENTS:]
    ]
    overall = None
    if whole is not None:
        counts = {name: getattr(whole, name) for name in ("count", "helped", "hurt", "inconclusive", "nonfinite")}
        numbers = {name: _number(getattr(whole, name)) for name in ("mean", "standard_error", "standardised")}
        overall = {"outcome": whole.outcome, **counts, **numbers, "every": found.every}
    reason = found.reasons[-1].about["reason"] if found.reasons else None
    return {"unsupported": reason, "events": shown, "overall": overall}


def _surfaces(found: SurfaceFrames) -> list[dict[str, Any]]:
    planes = sorted(found.planes, key=lambda plane: plane.key)
    return [
        {
            "attempt": plane.attempt,
            "probe": plane.probe,
            "step": plane.step,
            "plane": plane.about.get("plane"),
            "levels": plane.about.get("levels"),
            "computed": min(found.computed[plane.key], int(plane.about["size"]) ** 2),
            "request": plane.about.get("request", ""),
        }
        for plane in planes
    ]


def _surface(pieces: Pieces) -> dict[str, Any] | None:
    shown = surface.assemble(pieces)
    if shown is None:
        return None
    _, kept = thinned(len(shown.path["step"]), MOST_PATH)
    path = {name: values[kept] for name, values in shown.path.items()}
    return {
        "attempt": shown.attempt,
        "probe": shown.probe,
        "step": shown.step,
        "about": shown.about,
        "u": shown.u.tolist(),
        "v": shown.v.tolist(),
        "loss": listed(shown.loss, ~shown.computed),
        "computed": int(shown.computed.sum()),
        "nonfinite": shown.nonfinite,
        "unit_u": shown.unit_u,
        "unit_v": shown.unit_v,
        "base": spelled(shown.base),
        "path": {
            "step": path["step"].astype(np.int64).tolist(),
            **{name: listed(path[name]) for name in ("u", "v", "off", "loss")},
        },
        "seconds": shown.seconds,
    }


def _trajectory(found: SnapshotFrames) -> dict[str, Any] | None:
    rows = trajectory.snapshots(found.pieces, found.until, ends_only=found.total is not None)
    if rows is None:
        return None
    drawn = trajectory.draw(*rows, found.most)
    total = len(rows[0]["step"]) if found.total is None else found.total
    shown = len(drawn.step)
    chance = random_walk.explained(shown)
    return {
        "step": drawn.step.tolist(),
        "x": drawn.plane.x.tolist(),
        "y": drawn.plane.y.tolist(),
        "off": drawn.plane.off.tolist(),
        "loss": listed(drawn.loss),
        "explained": list(drawn.plane.explained or (None, None)),
        "random_walk": list(chance or (None, None)),
        "snapshots": total,
        "every": max(1, round(total / max(1, shown + drawn.lost))),
        "nonfinite": drawn.lost,
        "about": drawn.about,
    }
