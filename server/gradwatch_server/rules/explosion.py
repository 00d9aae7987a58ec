"""Gradients that leave their own history far behind and stay there, or take the loss with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import numpy as np

from .findings import OVERFLOW, Finding, Moment, Rows, State

NAME: Final = "explosion"

WINDOW: Final = 128  # steps of history: long enough for a steady median, short enough to follow a warm-up
LEAST_HISTORY: Final = 32  # steps before anything is judged; the first steps of a training are always wild
REFRESH: Final = 16  # steps between two looks at the history: its median hardly moves, and a look is dear
FAR: Final = math.log(10.0)  # ten times the median: clipped recurrent nets reach that in single steps only
SPREADS: Final = 8.0  # and as many robust standard deviations, so that a noisy training is not far all the time
LEAST_SPREAD: Final = 0.05  # of the log norm: a norm that hardly varies must not make a small step look far
HUGE: Final = math.log(1e4)  # one step so far above is no ordinary spike any more, ...
HUGE_HISTORY: Final = 8  # ... even over a short history
RECENT: Final = 16  # steps in which ...
SUSTAINED: Final = 8  # ... so many far ones are no spikes but a new regime
INITIAL: Final = 3  # steps whose median is the initial loss and norm: a bad recipe diverges within five
LATELY: Final = 8  # steps whose median is the loss and the norm now
LOSS_RISE: Final = 2.0  # above twice its initial level a loss has lost all it had learned
NORM_RISE: Final = 3.0  # what the norm must have risen by, for a risen loss to count as an explosion
CALM: Final = 64  # steps without evidence after which an episode is over


@dataclass(slots=True)
class _Memory:
    """The rule's state between rows; all of it JSON."""

    logs: list[float]  # log of the last finite norms
    centre: float
    spread: float
    age: int  # steps since centre and spread were worked out
    early_norms: list[float]
    early_losses: list[float]
    losses: list[float]
    far: list[int]
    episode: dict[str, Any] | None

    @classmethod
    def of(cls, state: State) -> _Memory:
        fresh: State = {"logs": [], "centre": 0.0, "spread": 1.0, "age": 0, "early_norms": [], "early_losses": []}
        return cls(**(fresh | {"losses": [], "far": [], "episode": None} | state))

    def as_json(self) -> State:
        return {name: getattr(self, name) for name in self.__slots__}

    def learn(self, log: float) -> None:
        """Add a norm to the history."""
        self.logs = [*self.logs[1 - WINDOW :], log]
        self.age += 1
        if len(self.logs) in (HUGE_HISTORY, LEAST_HISTORY) or self.age >= REFRESH:
            self.age, self.centre = 0, median(self.logs)
            # 1.4826 makes the median deviation of normal numbers their standard deviation.
            deviation = median(abs(value - self.centre) for value in self.logs)
            self.spread = max(LEAST_SPREAD, 1.4826 * deviation)


def judge(state: State, rows: Rows) -> tuple[State, list[Finding], list[Moment]]:
    """Findings over ``rows``; at most one for each episode, as it stands at its end or at the last row."""
    memory = _Memory.of(state)
    findings: dict[int, Finding] = {}
    moments: list[Moment] = []
    for row in range(len(rows.steps)):
        _judge_row(memory, rows, row, findings, moments)
    return memory.as_json(), list(findings.values()), moments


def _judge_row(memory: _Memory, rows: Rows, row: int, findings: dict[int, Finding], moments: list[Moment]) -> None:
    if rows.skipped[row] == OVERFLOW:
        return  # what overflowed is the loss scale, not the gradient
    norm, loss, step = float(rows.total_norm[row]), float(rows.loss[row]), int(rows.steps[row])
    if math.isfinite(loss):
        memory.losses = [*memory.losses[1 - LATELY :], loss]
        if len(memory.early_losses) < INITIAL:
            memory.early_losses.append(loss)
    if not (math.isfinite(norm) and norm > 0):
        return  # what is not finite is the other rule's
    log = math.log(norm)
    height = log - memory.centre if len(memory.logs) >= HUGE_HISTORY else 0.0
    far = height > (max(FAR, SPREADS * memory.spread) if len(memory.logs) >= LEAST_HISTORY else HUGE)
    if far and not (memory.far and memory.far[-1]):
        times = math.exp(height)
        text = f"step {step}: the total norm {norm:.4g} is {times:.3g} times its recent median"
        moments.append(Moment("spike", step, float(np.nan_to_num(rows.times[row])), text))
    memory.far = [*memory.far[1 - RECENT :], int(far)]
    if len(memory.early_norms) < INITIAL:
        memory.early_norms.append(norm)
    reasons = _reasons(memory, norm, height, far)
    memory.learn(log)
    _follow(memory, rows, row, reasons, findings)


def _reasons(memory: _Memory, norm: float, height: float, far: bool) -> list[str]:
    """Why this step is part of an explosion; empty when it is not."""
    usual = math.exp(memory.centre)
    reasons = []
    if far and (sum(memory.far) >= SUSTAINED or height > HUGE):
        reasons.append(
            f"the total norm is {norm:.4g}, {math.exp(height):.3g} times its median over the {len(memory.logs)} "
            f"steps before ({usual:.4g})"
        )
    if len(memory.early_losses) == INITIAL and len(memory.losses) == LATELY:
        initial, now = median(memory.early_losses), median(memory.losses)
        lately = math.exp(median(memory.logs[-LATELY:])) if memory.logs else norm
        usual_norm = median(memory.early_norms)
        # A loss that began around zero has no level to be twice as high as.
        risen = min(memory.early_losses) > 0 and now > initial * LOSS_RISE
        if risen and lately > NORM_RISE * usual_norm:
            reasons.append(f"the loss is {now:.4g}, over twice its initial level of {initial:.4g}")
    return reasons


def _follow(memory: _Memory, rows: Rows, row: int, reasons: list[str], findings: dict[int, Finding]) -> None:
    """Open, continue or close an episode."""
    step, episode = int(rows.steps[row]), memory.episode
    if not reasons:
        if episode and episode["calm"] + 1 >= CALM:
            memory.episode = None
        elif episode:
            episode["calm"] += 1
        return
    if episode is None:
        layers = _largest(rows, row)
        text = f"Step {step}: {' and '.join(reasons)}." + (f" Largest layers: {', '.join(layers)}." if layers else "")
        episode = memory.episode = {"first": step, "count": 0, "text": text, "layers": layers}
    episode["count"] += 1
    episode["calm"] = 0
    text = episode["text"]
    if episode["count"] > 1:
        text += f" It went on up to step {step} ({episode['count']} steps)."
    title = f"Gradients exploded at step {episode['first']}"
    if episode["layers"]:
        title += f", most of all in {episode['layers'][0]}"
    finding = Finding(NAME, "critical", title, text, episode["first"], step, episode["count"], episode["layers"])
    findings[episode["first"]] = finding


def _largest(rows: Rows, row: int) -> list[str]:
    norms = np.where(np.isfinite(rows.norms[row]), rows.norms[row], np.inf)
    if rows.present is not None:
        norms = np.where(rows.present[row], norms, -1.0)
    top = np.argsort(-norms, kind="stable")[:5].tolist()
    return [rows.layers[at].name for at in top if norms[at] > 0]
