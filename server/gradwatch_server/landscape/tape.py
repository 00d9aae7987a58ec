"""The landscape tape: the loss along single updates of a training, one line beside the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..store.landscape_frames import LINE, SUMMARY, ProbeRows

Floats = NDArray[np.float64]

# Where along an update (0: the weights before it, 1: the step taken) every line is evaluated.
ALPHAS: Final = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)


@dataclass(slots=True)
class Line:
    """The loss along one update. Points that have not come (yet) are not in it."""

    attempt: int
    probe: int
    step: int
    about: Mapping[str, Any]
    points: dict[float, float] = field(default_factory=dict)  # alpha: loss
    summary: dict[str, float] | None = None  # None: the probe has not ended

    def curve(self) -> tuple[Floats, Floats]:
        """All points in order: alpha, loss."""
        alphas = sorted(self.points)
        return np.array(alphas), np.array([self.points[alpha] for alpha in alphas])

    def on_grid(self) -> tuple[Floats, NDArray[np.bool_]]:
        """The losses at ALPHAS, and where there is none."""
        missing = np.array([alpha not in self.points for alpha in ALPHAS])
        return np.array([self.points.get(alpha, math.nan) for alpha in ALPHAS]), missing

    def told(self, name: str) -> float | None:
        """A number of the summary; None before there is one."""
        return None if self.summary is None else self.summary[name]

    @property
    def base(self) -> float | None:
        """The loss before the step."""
        return self.points.get(0.0) if self.summary is None else self.summary["base"]

    @property
    def taken(self) -> float | None:
        """The loss after the step taken."""
        return self.points.get(1.0) if self.summary is None else self.summary["taken"]

    @property
    def critical_alpha(self) -> float | None:
        """The shortest step along the update that makes the loss rise, where it is known."""
        low, high = self.told("critical_low"), self.told("critical_high")
        if low is None or high is None or not math.isfinite(low + high):
            return None
        # Where the loss rises at once there is no lower end to go to the middle from.
        return (low + high) / 2 if low > 0 else high

    @property
    def sharpness(self) -> float | None:
        """The critical sharpness 2 / (critical learning rate) (arXiv:2601.16979, section 2)."""
        alpha, rate = self.critical_alpha, self.told("learning_rate")
        if alpha is None or rate is None or not (math.isfinite(rate) and rate > 0):
            return None
        return 2 / (alpha * rate)


def lines(pieces: Sequence[ProbeRows]) -> list[Line]:
    """The lines that frames tell of, by attempt, step and number; what came later goes before what came earlier."""
    found: dict[tuple[int, int], Line] = {}
    for piece in pieces:
        if piece.name not in (LINE, SUMMARY):
            continue
        line = found.setdefault(piece.key, Line(*piece.key, piece.step, piece.about))
        if piece.name == LINE:
            line.about = piece.about or line.about
            line.points.update(zip(piece.columns["alpha"].tolist(), piece.columns["loss"].tolist(), strict=True))
        else:
            line.summary = {name: float(values[0]) for name, values in piece.columns.items()}
    return sorted(found.values(), key=lambda line: (line.attempt, line.step, line.probe))


def cost(pieces: Sequence[ProbeRows]) -> tuple[float | None, float | None]:
    """Seconds spent on probes, and their share of the time that went by, from each attempt's newest summary."""
    newest: dict[int, Line] = {line.attempt: line for line in lines(pieces) if line.summary is not None}
    if not newest:
        return None, None
    spent, elapsed = (math.fsum(line.told(name) or 0.0 for line in newest.values()) for name in ("spent", "elapsed"))
    return spent, spent / elapsed if elapsed > 0 else None
