"""What every clipping strategy is: measure, decide, apply."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from gradwatch.clipping.norms import Measurement, measure_norms


class Layers(Protocol):
    """All layers of a monitor, in a fixed order. They may become more, and never fewer."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def groups(self) -> Sequence[int]:
        """For each layer the number of its parameter group, counted through all optimizers; -1: in none."""
        ...


@dataclass(slots=True)
class Gradients:
    """The gradients of one step."""

    tensors: list[Tensor]
    parameters: Sequence[Tensor]
    """Whose gradients they are, in the same order."""
    layers: Layers
    places: Tensor | None
    """Which layer each gradient belongs to, int64 on the gradients' device; None: gradient i belongs to layer i."""
    step: int
    uniform: bool = True
    """The parameters share one device and dtype, and none is sharded."""


class Decision(NamedTuple):
    """What a strategy makes of a measurement.

    On the CPU ``coefficient``, ``clipped``, ``threshold`` and ``skip`` are Python numbers, because reading them costs
    nothing; on another device they may stay 0-dimensional tensors there, because reading them would make the training
    wait.
    """

    coefficient: Tensor | float
    """The part of the total norm that is left: 1, or less when clipped."""
    clipped: Tensor | bool
    """Whether this step is a clip event, by the strategy's own definition."""
    threshold: Tensor | float
    """In force at this step; infinity: nothing is clipped, however large."""
    multiplier: Tensor | None = None
    """0-dimensional factor for all gradients. None: no common factor, or it is known to be 1."""
    factors: Tensor | None = None
    """One factor for each gradient, shape (gradients,). None: no such factors, or all are known to be 1."""
    skip: Tensor | bool = False
    """Leave this step out: parameters and optimizer state stay as they are."""
    cosine: Tensor | float = 1.0
    """Between the gradient before and after: below 1 where clipping bends the direction (by value, layer or unit)."""


class Strategy(ABC):
    """A clipping rule. A subclass says in its docstring what its clip event is and where its formula comes from.

    ``decide`` may keep state from step to step. It decides from reduced norms only, so that all ranks decide alike; it
    lets no non-finite norm into its state; and it never makes the training wait for a device: no ``.item()``, no branch
    on a tensor unless the tensor lies on the CPU. State tensors are changed in place, so that a replayed CUDA graph
    moves them on.
    """

    norm_type: float = 2.0
    threshold_of: str = "total norm"
    """What the threshold limits: "total norm", "layer", "group", "element", "unit" or "nothing"."""
    skips: bool = False
    """Whether a decision may ever ask to skip."""

    @property
    def scales(self) -> bool:
        """Whether all it does to the gradients is to multiply them, which a fused optimizer can do in passing."""
        return type(self).apply is Strategy.apply

    def measure(self, gradients: Gradients) -> Measurement:
        """Every gradient's ``norm_type``-norm and the total norm."""
        return measure_norms(gradients.tensors, self.norm_type, gradients.uniform)

    @property
    @abstractmethod
    def threshold(self) -> float:
        """The threshold set for the next step; infinity when nothing is ever clipped. Settable."""

    @threshold.setter
    @abstractmethod
    def threshold(self, value: float) -> None: ...

    @abstractmethod
    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        """Coefficient and clip event for this step, without waiting for a device. Called once a step, in order."""

    def apply(self, measurement: Measurement, gradients: Gradients, decision: Decision) -> None:
        """Change the gradients in place as decided."""
        if decision.multiplier is not None:
            multiply(gradients.tensors, decision.multiplier, measurement.uniform)
        elif decision.factors is not None:
            multiply_each(gradients.tensors, decision.factors, measurement.uniform)

    @abstractmethod
    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        """torch's own clipping by the nearest rule, for when gradwatch itself has failed. Returns the total norm."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Name and arguments as JSON (infinity as "inf"), as the run page shows them."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: plain numbers, strings, lists and dictionaries."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave. Raises ValueError where it was another strategy's."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, and the checkpoint has {sorted(state)}")


def multiply(tensors: list[Tensor], factor: Tensor, uniform: bool) -> None:
    """Multiply all ``tensors`` in place by the 0-dimensional ``factor``."""
    if uniform:
        torch._foreach_mul_(tensors, factor)
        return
    moved: dict[torch.device, Tensor] = {}
    for tensor in tensors:
        if tensor.device not in moved:
            moved[tensor.device] = factor.to(tensor.device)
        tensor.mul_(moved[tensor.device])


def multiply_each(tensors: list[Tensor], factors: Tensor, uniform: bool) -> None:
    """Multiply each of ``tensors`` in place by its own of ``factors``, shape (tensors,)."""
    if factors.device.type == "cpu":
        changed = [at for at, factor in enumerate(factors.tolist()) if factor != 1.0]
        tensors, factors = [tensors[at] for at in changed], factors[changed]
    if uniform and tensors:
        # In the tensors' own dtype: _foreach_mul_ by a list of tensors would promote, and refuse to write in place.
        torch._foreach_mul_(tensors, list(factors.to(tensors[0].dtype).unbind()))
        return
    for tensor, factor in zip(tensors, factors.unbind(), strict=True):
        tensor.mul_(factor.to(tensor.device))
