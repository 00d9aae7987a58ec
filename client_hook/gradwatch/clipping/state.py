"""State that a strategy keeps on the device of the norms: named tensors, changed in place, saved as plain numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices that have none (Apple's)."""
    return torch.float32 if device.type == "mps" else torch.float64


class State:
    """Named tensors that come into being on the first device that asks for them, and follow to another."""

    def __init__(self, **initial: float | list[float]) -> None:
        self._values: dict[str, Any] = dict(initial)
        self._tensors: dict[str, Tensor] = {}

    def on(self, device: torch.device) -> dict[str, Tensor]:
        """The tensors, floating point, on ``device``. To be changed in place (``copy_``), never replaced."""
        if not self._tensors or next(iter(self._tensors.values())).device != device:
            values = self.save()
            dtype = widest_float(device)
            self._tensors = {name: torch.tensor(value, dtype=dtype, device=device) for name, value in values.items()}
        return self._tensors

    def save(self) -> dict[str, Any]:
        """Plain numbers and lists. Waits for the device."""
        return {name: tensor.tolist() for name, tensor in self._tensors.items()} or dict(self._values)

    def load(self, values: dict[str, Any]) -> None:
        """Raises ValueError unless ``values`` holds what ``save`` gives, lists of the same length."""
        if set(values) != set(self._values):
            raise ValueError(f"the saved state holds {sorted(values)}, this strategy keeps {sorted(self._values)}")
        self._values = {name: _as_saved(name, values[name], own) for name, own in self._values.items()}
        self._tensors = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __getstate__(self) -> dict[str, Any]:
        return {"_values": self.save(), "_tensors": {}}


def _as_saved(name: str, value: Any, own: float | list[float]) -> float | list[float]:
    if isinstance(own, list):
        if not isinstance(value, list) or len(value) != len(own):
            raise ValueError(f"the saved {name!r} must be a list of {len(own)} numbers, not {value!r}")
        return [float(number) for number in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the saved {name!r} must be a number, not {value!r}")
    return float(value)


class LayerState:
    """One number for each layer, known by the layer's name in a checkpoint; NaN: the layer was not seen yet."""

    def __init__(self) -> None:
        self._saved: dict[str, float] = {}
        self._names: list[str] = []
        self._tensor: Tensor | None = None

    def on(self, device: torch.device, names: Any) -> Tensor:
        """The numbers of all layers, shape (layers,), on ``device``. To be changed in place."""
        if self._tensor is None or self._tensor.device != device or len(names) != len(self._names):
            known = self.save()
            values = [known.get(name, float("nan")) for name in names]
            self._tensor = torch.tensor(values, dtype=widest_float(device), device=device)
            self._names = list(names)
        return self._tensor

    def save(self) -> dict[str, float]:
        """By layer name; what a checkpoint held of layers that are not here (yet) is kept. Waits for the device."""
        values = [] if self._tensor is None else self._tensor.tolist()
        return self._saved | {name: value for name, value in zip(self._names, values, strict=True) if value == value}

    def load(self, values: dict[str, float]) -> None:
        self._saved = {str(name): float(value) for name, value in values.items()}
        self._tensor = None
        self._names = []

    def __getstate__(self) -> dict[str, Any]:
        return {"_saved": self.save(), "_names": [], "_tensor": None}
