"""What every clipping strategy is: measure, decide, apply."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Measurement(NamedTuple):
    """Norms before clipping, on the device of the gradients."""

    norms: Tensor
    """One norm per gradient, shape (gradients,), floating point."""
    total: Tensor
    """The norm of ``norms``, 0-dimensional: the total norm."""
    norm_type: float
    uniform: bool = True
    """All gradients are dense and share one device and dtype, so that one foreach call serves them."""


class Decision(NamedTuple):
    """What a strategy makes of a measurement.

    On the CPU ``coefficient`` and ``clipped`` are Python numbers, because reading them costs nothing; on another device
    they stay tensors there, because reading them would make the training wait.
    """

    coefficient: Tensor | float
    clipped: Tensor | bool
    threshold: float
    multiplier: Tensor | None = None
    """0-dimensional factor for the gradients; None: nothing to multiply."""


class Strategy(ABC):
    """A clipping rule. A subclass says in its docstring what its clip event is and where its formula comes from."""

    norm_type: float = 2.0

    def measure(self, gradients: list[Tensor], uniform: bool) -> Measurement:
        """Every gradient's ``norm_type``-norm and the total norm, with torch's own arithmetic.

        ``uniform``: the parameters share one device and dtype.
        """
        return measure_norms(gradients, self.norm_type, uniform)

    @property
    @abstractmethod
    def threshold(self) -> float:
        """The threshold in force; infinity when nothing is ever clipped."""

    @threshold.setter
    @abstractmethod
    def threshold(self, value: float) -> None: ...

    @abstractmethod
    def decide(self, measurement: Measurement, gradients: list[Tensor]) -> Decision:
        """Coefficient and clip event for this step, without waiting for a device."""

    @abstractmethod
    def apply(self, measurement: Measurement, gradients: list[Tensor], decision: Decision) -> None:
        """Change the gradients in place as decided."""

    @abstractmethod
    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        """torch's own clipping by the same rule, for when gradwatch itself has failed. Returns the total norm."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Name and arguments, as the run page shows them."""

    def state_dict(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.threshold = float(state["threshold"])


def measure_norms(gradients: list[Tensor], norm_type: float, uniform: bool) -> Measurement:
    """Per-gradient norms and total norm, bit-identical to ``torch.nn.utils.get_total_norm``.

    One foreach call serves gradients of one device and dtype (``uniform``). Whatever it cannot take (several of either,
    sparse gradients, empty ones under p = inf) goes gradient by gradient.
    """
    if not gradients:
        return Measurement(torch.zeros(0), torch.tensor(0.0), norm_type)
    if not uniform:
        return _measure_each(gradients, norm_type)
    try:
        norms = _in_one_tensor(torch._foreach_norm(gradients, norm_type))
    except (RuntimeError, NotImplementedError):
        return _measure_each(gradients, norm_type)
    return Measurement(norms, torch.linalg.vector_norm(norms, norm_type), norm_type)


def _in_one_tensor(norms: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    first = norms[0]
    if first.device.type == "cpu" and first.dtype is torch.float32:
        # The same numbers as torch.stack gives, for two thirds of its price at hundreds of tensors.
        return torch.from_numpy(np.fromiter(map(Tensor.item, norms), np.float32, len(norms)))
    return torch.stack(tuple(norms))


def _measure_each(gradients: list[Tensor], norm_type: float) -> Measurement:
    device = gradients[0].device
    dense = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    norms = [
        (torch.linalg.vector_norm(gradient, norm_type) if gradient.numel() else gradient.new_zeros(())).to(device)
        for gradient in dense
    ]
    filled = [gradient for gradient in dense if gradient.numel()]
    # torch groups by device and dtype before it adds up, so its own function gives the total: same order, same bits.
    total = torch.nn.utils.get_total_norm(filled, norm_type)
    return Measurement(_whole(torch.stack(norms)), _whole(total), norm_type, uniform=False)


def _whole(norms: Tensor) -> Tensor:
    """Norms of sharded gradients (DTensor) are partial on each rank until they are reduced."""
    full = getattr(norms, "full_tensor", None)
    return full() if full is not None else norms
