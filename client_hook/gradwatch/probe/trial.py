"""Trying a probe out before anything is drawn: does its loss depend on the weights it is given?"""

from __future__ import annotations

import math
from typing import Final

import torch

from gradwatch.probe.activity import Bench, Moment, Piece, Values, number_of
from gradwatch.probe.directions import filter_normalised, norm
from gradwatch.probe.reading import Reading
from gradwatch.probe.shadow import UnfitProbe, copies, place

_FAR: Final = 0.1  # of the weights' length: far enough to change any loss, near enough to keep most finite
_TRIES: Final = 3


class Trial:
    """The first points of all: at the weights, and away from them in random directions.

    A closure that ignores its model (it uses the outer one, say), or a model whose forward is bound to the original's
    weights, gives everywhere the same loss and would draw a flat line for ever.
    """

    weight = 1.0
    must_go_on = False

    def __init__(self, bench: Bench) -> None:
        self.spent = 0.0
        self._bench = bench
        self._losses: list[float] = []
        self.is_passed = False

    def next_piece(self, moment: Moment) -> Piece:
        away = len(self._losses)
        return Piece("trial", lambda: self._loss(away), self._add, calls_probe=True)

    def _loss(self, away: int) -> Reading:
        bench = self._bench
        weights = copies(bench.originals)
        if away:
            direction = filter_normalised(weights, away) if any(w.dim() > 1 for w in weights) else copies(weights)
            length = norm(direction)
            scale = (_FAR * away * norm(weights) / length.clamp_min(torch.finfo(length.dtype).tiny)).to(
                weights[0].dtype
            )
            torch._foreach_mul_(direction, scale)
            place(bench.shadow.weights, weights, (1.0, direction))
        else:
            place(bench.shadow.weights, weights)
        return Reading([bench.loss(bench.shadow.follow())])

    def _add(self, values: Values, seconds: float) -> None:
        loss = number_of(values, 0)
        first = self._losses[0] if self._losses else loss
        self._losses.append(loss)
        if loss != first or not math.isfinite(loss):  # with a loss that is not finite there is nothing to tell
            self.is_passed = True
        elif len(self._losses) > _TRIES:
            raise UnfitProbe(
                "the probe's loss does not depend on the weights: compute it with the model that the probe is given, "
                "as in probe=lambda model: criterion(model(inputs), targets)"
            )
