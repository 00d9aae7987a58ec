"""One step of clipping: gather, measure, decide, and change the gradients, leave that to the optimizer, or skip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradwatch.clipping.fold import Fold, settle
from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.strategy import Decision, Gradients, Strategy
from gradwatch.layers import LayerTable, Present
from gradwatch.measure.loss_scale import tell_scaler

NonFinite = Literal["record", "skip", "raise"]

SKIPPED_HERE = 1
SKIPPED_BY_SCALER = 2


class Call(NamedTuple):
    """What one clip was asked to do."""

    strategy: Strategy
    nonfinite: NonFinite
    parameters: Sequence[Tensor] | None
    """None: all of the monitor's."""
    loss: Tensor | float | None = None
    scaler: Any = None
    optimizers: Sequence[Optimizer] | None = None
    """Those that step exactly these parameters; None: all of the monitor's."""


class Taken(NamedTuple):
    """A step that was measured and decided, before its gradients are changed."""

    gradients: Gradients
    present: Present | None
    measurement: Measurement
    decision: Decision


class Outcome(NamedTuple):
    """What became of the gradients."""

    skipped: Tensor | int
    """0: nothing is skipped; 1: the hook leaves the step out; 2: the GradScaler will."""
    refused: bool = False
    """The total norm is not finite, under ``nonfinite="raise"``; the gradients are untouched."""


class Engine:
    """Clips the gradients of one monitor's parameters. ``fold``: whether a fused optimizer may do the multiplying."""

    def __init__(self, table: LayerTable, optimizers: Sequence[Optimizer], fold: bool) -> None:
        self._table = table
        self._optimizers = list(optimizers)
        self.fold = Fold(self._optimizers) if fold else None

    def take(self, strategy: Strategy, parameters: Sequence[Tensor], step: int) -> Taken:
        """Measure the gradients of ``parameters`` and let ``strategy`` decide."""
        settle(self._optimizers)
        table = self._table
        tensors = [gradient for parameter in parameters if (gradient := parameter.grad) is not None]
        present = table.where_present(parameters, tensors)
        owners = parameters if len(tensors) == len(parameters) else [p for p in parameters if p.grad is not None]
        places = None if present is None else present.index
        gradients = Gradients(tensors, owners, table, places, step, table.uniform)
        measurement = strategy.measure(gradients)
        if not measurement.uniform:
            _coalesce(gradients)
        return Taken(gradients, present, measurement, strategy.decide(measurement, gradients))

    def change(
        self,
        strategy: Strategy,
        taken: Taken,
        nonfinite: NonFinite,
        scaler: Any,
        optimizers: Sequence[Optimizer] | None,
    ) -> Outcome:
        """Change the gradients as decided.

        ``optimizers``: those that step exactly these parameters next, so that they may do the multiplying; None: all.
        """
        total, skip = taken.measurement.total, taken.decision.skip
        scaled = scaler is not None and scaler.is_enabled()
        optimizers = self._optimizers if optimizers is None else optimizers
        foldable = self.fold is not None and self._foldable(optimizers, taken)
        if nonfinite == "raise" and not scaled and not bool(torch.isfinite(total)):
            return Outcome(SKIPPED_HERE, refused=True)
        if nonfinite == "skip" and not (scaled and tell_scaler(scaler, optimizers, total)):
            skip = _either(skip, ~torch.isfinite(total))
        if isinstance(skip, Tensor) and not (foldable and self.fold is not None and self.fold.can_skip(optimizers)):
            skip = bool(skip)  # the one wait for the device, where no fused optimizer can be told to skip
        if skip is True:
            # Without a gradient an optimizer touches neither the parameter nor its state, at its first step either.
            for parameter in taken.gradients.parameters:
                parameter.grad = None
            return Outcome(SKIPPED_BY_SCALER if scaled and _scaler_skips(total) else SKIPPED_HERE)
        self._apply(strategy, taken, skip if isinstance(skip, Tensor) else None, foldable, optimizers)
        if scaled:
            return Outcome(_scaler_skips(total))
        return Outcome(skip.to(torch.int64) if isinstance(skip, Tensor) else 0)

    def _apply(
        self, strategy: Strategy, taken: Taken, skip: Tensor | None, foldable: bool, optimizers: Sequence[Optimizer]
    ) -> None:
        multiplier = taken.decision.multiplier
        common = strategy.scales and taken.decision.factors is None
        if foldable and self.fold is not None and common and (multiplier is not None or skip is not None):
            one = taken.measurement.total.new_ones(()) if multiplier is None else multiplier
            if self.fold.arm(optimizers, one, skip):
                return
        strategy.apply(taken.measurement, taken.gradients, taken.decision)
        if skip is not None and self.fold is not None:
            self.fold.arm(optimizers, taken.measurement.total.new_ones(()), skip)

    def _foldable(self, optimizers: Sequence[Optimizer], taken: Taken) -> bool:
        assert self.fold is not None
        key = taken.gradients.parameters if taken.present is None else taken.present
        ready = self.fold.ready(optimizers, taken.gradients.parameters, key)
        return ready and taken.measurement.uniform


def nonfinite_layers(taken: Taken, table: LayerTable) -> str:
    """The names of the layers whose norm is not finite; at most eight. Waits for the device."""
    bad = (~torch.isfinite(taken.measurement.norms)).nonzero().flatten().tolist()
    present = taken.present
    names = [table.layers[place if present is None else present.places[place]].name for place in bad]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) + more) or "the sum of all layers"


def _either(one: Tensor | bool, other: Tensor) -> Tensor | bool:
    if other.device.type == "cpu" and not isinstance(one, Tensor):
        return one or bool(other)
    return other | one if one is not False else other


def _scaler_skips(total: Tensor) -> Tensor | int:
    if total.device.type == "cpu":
        return 0 if bool(torch.isfinite(total)) else SKIPPED_BY_SCALER
    return (~torch.isfinite(total)).to(torch.int64) * SKIPPED_BY_SCALER


def _coalesce(gradients: Gradients) -> None:
    """Add up what sparse gradients hold of one row, as every rule on single elements or rows needs it."""
    for at, (parameter, gradient) in enumerate(zip(gradients.parameters, gradients.tensors, strict=True)):
        if gradient.is_sparse and not gradient.is_coalesced():
            parameter.grad = gradients.tensors[at] = gradient.coalesce()
