"""What a rule sees, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..store.decode import MISSING_BITS, Floats, Layer, Mask, StepRows, Steps

State = dict[str, Any]

MOST_LAYERS = 50  # named in one alert

# The values of the column `skipped`, besides 0.
LEFT_OUT = 1
OVERFLOW = 2


@dataclass(frozen=True, slots=True)
class Rows:
    """Steps of one writer, in the order in which they were recorded."""

    steps: Steps
    times: Floats
    loss: Floats  # NaN where it is not finite or not given; see `loss_given`
    loss_given: Mask
    total_norm: Floats
    norms: NDArray[Any]  # rows x layers
    present: Mask | None
    layers: Sequence[Layer]
    skipped: Floats  # LEFT_OUT: by the hook; OVERFLOW: by the GradScaler, for its own overflow; else 0

    @property
    def overflowed(self) -> Mask:
        """Where a GradScaler only does its work: its loss scale was too large, and the loss itself is fine."""
        loss_bad = self.loss_given & ~np.isfinite(self.loss)
        ordinary: Mask = (self.skipped == OVERFLOW) & ~loss_bad
        return ordinary

    @classmethod
    def of(cls, rows: StepRows, layers: Sequence[Layer]) -> Rows:
        """The rows of a decoded frame."""
        count = len(rows.steps)
        nothing = np.full(count, MISSING_BITS, np.uint64).view(np.float64)
        loss = rows.scalars.get("loss", nothing)
        norm = rows.scalars.get("total_norm", nothing)
        norm = np.where(norm.view(np.uint64) == MISSING_BITS, 0.0, norm)
        given = loss.view(np.uint64) != MISSING_BITS
        skipped = np.nan_to_num(rows.scalars.get("skipped", np.zeros(count)))
        return cls(rows.steps, rows.times, loss, given, norm, rows.layers, rows.present, layers, skipped)


@dataclass(frozen=True, slots=True)
class Finding:
    """An episode as it stands. Later findings with the same rule and ``first_step`` replace it."""

    rule: str
    severity: Literal["critical", "warning"]
    title: str
    text: str
    first_step: int
    last_step: int
    count: int  # steps of the episode that were bad
    layers: list[str]  # culprit first


@dataclass(frozen=True, slots=True)
class Moment:
    """Something for the event lane."""

    kind: Literal["spike", "nonfinite"]
    step: int
    time: float
    text: str


class Rule(Protocol):
    """A rule's module."""

    NAME: str

    def judge(self, state: State, rows: Rows) -> tuple[State, list[Finding], list[Moment]]:
        """The next state, the findings that are new or changed, and the moments."""
        ...
