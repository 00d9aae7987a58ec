"""One step of a strategy on bare gradients, as the engine takes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.strategy import Decision, Gradients, Strategy
from torch import Tensor


@dataclass(frozen=True)
class Named:
    """All layers of a model."""

    names: list[str]
    groups: list[int] = field(default_factory=list)


def gradients_of(tensors: list[Tensor], step: int = 0, uniform: bool | None = None) -> Gradients:
    """``tensors`` as the gradients of layers "layer0", "layer1" and so on, in one parameter group."""
    one_kind = len({(tensor.dtype, tensor.device) for tensor in tensors}) <= 1
    layers = Named([f"layer{place}" for place in range(len(tensors))], [0] * len(tensors))
    parameters = [torch.ones(tensor.shape, dtype=tensor.dtype, device=tensor.device) for tensor in tensors]
    return Gradients(tensors, parameters, layers, None, step, one_kind if uniform is None else uniform)


def clip(strategy: Strategy, tensors: list[Tensor], step: int = 0) -> tuple[Measurement, Decision]:
    """Measure, decide and apply; ``tensors`` are changed in place."""
    gradients = gradients_of(tensors, step)
    measurement = strategy.measure(gradients)
    decision = strategy.decide(measurement, gradients)
    strategy.apply(measurement, gradients, decision)
    return measurement, decision
