"""Trying a probe out before anything is drawn: does its loss depend on the weights it is given?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from gradwatch.probe.activity import Bench, Moment, Piece, Values, number_of
from gradwatch.probe.directions import norm
from gradwatch.probe.random_state import devices_of
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
            # Noise that is alike everywhere: a filter-normalised one leaves weights alone that are zero, as those of an
            # adapter are at first, and then often all of the loss. Not shorter than a length of 1 would ask for.
            direction = _noise(weights, away)
            scale = _FAR * away * norm(weights).clamp_min(1.0) / norm(direction)
            torch._foreach_mul_(direction, scale.to(direction[0].dtype))
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


def _noise(weights: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Normal numbers in the shape of ``weights``, from generators of their own."""
    generators = {device: torch.Generator(device).manual_seed(seed) for device in devices_of(weights)}
    noise = []
    for weight in weights:
        drawn = torch.randn(weight.shape, device=weight.device, generator=generators[weight.device])
        noise.append(drawn.to(weight.dtype))
    return noise
