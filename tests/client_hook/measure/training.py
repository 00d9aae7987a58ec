"""Small trainings for the sampler's tests: gradients as the monitor gathers them, and decisions about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gradwatch.clipping.strategy import Decision, Gradients
from gradwatch.measure import magnitude, sampler, update_ratio, weight_norm
from gradwatch.measure.sampler import Sampler
from torch import Tensor, nn

NOTHING = Decision(1.0, False, 1.0)

Step = Callable[[Gradients, Decision], object]


class NamedLayers:
    """Names and groups of layers, as strategies ask for them."""

    def __init__(self, count: int) -> None:
        self.names = [str(place) for place in range(count)]
        self.groups = [0] * count


def gathered(parameters: Sequence[Tensor], step: int, some: Sequence[int] | None = None) -> Gradients:
    """The gradients of a step. ``some``: which of the layers are clipped; all, if not given."""
    asked = range(len(parameters)) if some is None else some
    there = {place: gradient for place in asked if (gradient := parameters[place].grad) is not None}
    places = None if len(there) == len(parameters) else torch.tensor(list(there), dtype=torch.int64)
    owners = [parameters[place] for place in there]
    return Gradients(list(there.values()), owners, NamedLayers(len(parameters)), places, step)


def small_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, step: Step) -> None:
    """Clips nothing; dropout draws from torch's global generator at every step."""
    parameters = list(model.parameters())
    for number in range(steps):
        optimizer.zero_grad()
        inputs = torch.randn(16, 6)
        (model(inputs) - inputs[:, :3].sin() * 3).square().mean().backward()
        with torch.no_grad():
            step(gathered(parameters, number), Decision(1.0, False, 1.0))
        optimizer.step()


class Clock:
    """Time passes by a step at a time, and by what the measurements are said to take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, per_layer: float = 1e-4, per_copy: float = 1e-6) -> None:
        self.now = 0.0
        monkeypatch.setattr(sampler, "time", SimpleNamespace(perf_counter=lambda: self.now))
        for module, name in ((weight_norm, "weight_norms"), (magnitude, "magnitudes"), (update_ratio, "copied_bytes")):
            monkeypatch.setattr(module, name, self._taking(getattr(module, name), per_layer, per_copy))

    def _taking(self, measure: Callable[[Any], Any], per_layer: float, per_copy: float) -> Callable[[Any], Any]:
        def timed(tensors: Any) -> Any:
            self.now += per_copy if isinstance(tensors, Tensor) else per_layer * len(tensors)
            return measure(tensors)

        return timed


def layers(count: int, size: int = 4) -> list[Tensor]:
    parameters = [torch.ones(size, requires_grad=True) for _ in range(count)]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.5)
    return parameters


def run(kept: Sampler, parameters: list[Tensor], steps: int, clock: Clock, step_seconds: float = 1e-3) -> list[float]:
    """Seconds sampled in each step."""
    spent = []
    with torch.no_grad():
        for step in range(steps):
            clock.now += step_seconds
            spent.append(kept.step(gathered(parameters, step), NOTHING))
    return spent
