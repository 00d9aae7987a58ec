"""Optuna: every trial a run of its own, all runs of a study in one group, and trials that diverge pruned."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradwatch.clipping.strategy import Strategy
from gradwatch.config import storable_config
from gradwatch.integrations.one_threshold import check_options
from gradwatch.monitor import Monitor
from gradwatch.watching import watch

try:
    import optuna
except ModuleNotFoundError as missing:
    if missing.name != "optuna":
        raise
    raise ImportError("gradwatch.integrations.optuna needs Optuna: pip install optuna", name="optuna") from None


def watch_trial(
    trial: Any,
    model: nn.Module,
    optimizer: Optimizer | Iterable[Optimizer] | None = None,
    *,
    clip: float | Strategy | None,
    config: Any = None,
    **options: Any,
) -> Monitor:
    """``gradwatch.watch`` for one trial: named after its number, grouped by its study, with its parameters as config.

    Call it after the trial's ``suggest_...`` calls, since only parameters suggested by then are told. ``config`` adds
    to them; ``options`` are the other arguments of ``gradwatch.watch``. Raises ValueError when GRADWATCH_RUN is set,
    which would make all trials attempts of one run.
    """
    check_options(options)
    if os.environ.get("GRADWATCH_RUN"):
        raise ValueError("GRADWATCH_RUN names one run, and a study has one for each trial: unset it")
    study = getattr(trial, "study", None)  # a FixedTrial has none
    more = {} if config is None else storable_config(config)
    told = {
        "name": f"trial {trial.number}",
        "group": getattr(study, "study_name", None),
        "config": {**trial.params, **(more if isinstance(more, dict) else {"config": more})},
    }
    return watch(model, optimizer, clip=clip, **{**told, **options})


class PruneDiverged:
    """Ends a trial that has diverged, by ``optuna.TrialPruned``, and asks the study's own pruner beside.

    Looks every ``every`` steps at the mean loss since the last look; only then it waits for a device. Diverged is a
    loss or total norm that is not finite, or a mean loss above ``loss_above`` times the first step's loss (where that
    one is above 0). In a study that minimizes one value, each mean loss is reported to the pruner at its step.

    The run of a trial that diverged ends as failed; of one that the study's pruner gave up, as finished. Both have an
    event "pruned".
    """

    def __init__(self, trial: Any, monitor: Monitor, *, loss_above: float = 2.0, every: int = 10) -> None:
        if not loss_above > 1:
            raise ValueError(f"loss_above must be above 1, not {loss_above!r}: it is a multiple of the first loss")
        if every < 1:
            raise ValueError(f"every must be at least 1 step, not {every!r}")
        self._trial = trial
        self._monitor = monitor
        self._loss_above = loss_above
        self._every = every
        self._reports = _minimizes_one_value(trial)
        self._first: float | None = None
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []

    def step(self, loss: Tensor | float, total_norm: Tensor | None = None) -> None:
        """After each optimizer step. ``total_norm``: what ``monitor.clip`` returned.

        Leave ``total_norm`` out under a GradScaler, which gets over infinite norms by itself. Raises
        optuna.TrialPruned.
        """
        self._losses.append(loss.detach().reshape(()) if isinstance(loss, Tensor) else torch.tensor(float(loss)))
        if total_norm is not None:
            self._norms.append(total_norm.detach())
        if len(self._losses) >= self._every:
            self._look()

    def _look(self) -> None:
        losses = torch.stack(self._losses).double().tolist()
        norms = torch.stack(self._norms).double().tolist() if self._norms else []
        self._losses, self._norms = [], []
        if self._first is None:
            self._first = losses[0]
        mean = sum(losses) / len(losses)
        reason = self._diverged(mean, norms)
        if reason:
            self._end("failed", reason)
        if self._reports:
            self._trial.report(mean, self._monitor.step - 1)
            if self._trial.should_prune():
                self._end("finished", f"pruned by the study: mean loss {mean:.6g}")

    def _diverged(self, mean: float, norms: list[float]) -> str:
        if not math.isfinite(mean):
            return "diverged: the loss is not finite"
        if not all(map(math.isfinite, norms)):
            return "diverged: the gradient norm is not finite"
        if self._first is not None and self._first > 0 and mean > self._loss_above * self._first:
            return f"diverged: mean loss {mean:.6g} is above {self._loss_above:g} x the first, {self._first:.6g}"
        return ""

    def _end(self, state: str, reason: str) -> None:
        self._monitor.event("pruned", reason)
        self._monitor.finish(state, reason)
        raise optuna.TrialPruned(reason)


def _minimizes_one_value(trial: Any) -> bool:
    study = getattr(trial, "study", None)
    return study is not None and list(study.directions) == [optuna.study.StudyDirection.MINIMIZE]
