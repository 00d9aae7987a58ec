"""The tripwire: everything a probe could have moved in the training that it must not touch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradwatch.probe.pieces import widest
from gradwatch.probe.random_state import RandomState, devices_of


class TrainingState:
    """A fingerprint of a training between two of its own operations.

    It holds versions, places and owners of parameters, buffers and gradients, the modules' training flags, the global
    random numbers and torch's own switches. ``with_values``: norms of all parameters and buffers as well, which
    costs one pass through them, and also sees writes that go past torch's version counters (``.data``), and copies of
    the buffers for ``put_back``.
    """

    def __init__(self, model: nn.Module, *, with_values: bool = False) -> None:
        parameters, buffers = list(model.parameters()), list(model.buffers())
        self._parameters = [_mark(parameter) for parameter in parameters]
        self._gradients = [None if tensor.grad is None else _mark(tensor.grad) for tensor in parameters]
        self._buffers = [_mark(buffer) for buffer in buffers]
        self._flags = [module.training for module in model.modules()]
        self._switches = _switches()
        self._random = RandomState(devices_of(parameters))
        self._norms = _norms([*parameters, *buffers]) if with_values else None
        self._kept = [buffer.detach().clone() for buffer in buffers] if with_values else None

    def moved(self, before: TrainingState) -> list[str]:
        """What differs from ``before``, in words; nothing, as it should be. Waits for no device."""
        told = {
            "parameters": self._parameters != before._parameters,
            "gradients": self._gradients != before._gradients,
            "buffers": self._buffers != before._buffers,
            "training flags": self._flags != before._flags,
            "torch's switches": self._switches != before._switches,
            "random numbers": self._random != before._random,
        }
        return [what for what, differs in told.items() if differs]

    def put_back(self, model: nn.Module) -> None:
        """Training flags, and the values of buffers where they were kept, as they were: what a forward of the
        training's own model moves in place of the one that the probe is given."""
        modules, buffers = list(model.modules()), list(model.buffers())
        if len(modules) == len(self._flags):
            for module, flag in zip(modules, self._flags, strict=True):
                module.training = flag
        if self._kept is not None and [one.shape for one in buffers] == [one.shape for one in self._kept]:
            for buffer, kept in zip(buffers, self._kept, strict=True):
                buffer.copy_(kept)

    def values_moved(self, before: TrainingState) -> Tensor | None:
        """Whether values differ, 0-dimensional bool on the training's device; None where they were not taken."""
        if self._norms is None or before._norms is None or len(self._norms) != len(before._norms):
            return None
        pairs = zip(self._norms, before._norms, strict=True)
        # As bit patterns, since a norm that is NaN before and after has not moved.
        differs = [(mine.view(torch.int32) != theirs.view(torch.int32)).any() for mine, theirs in pairs]
        first = differs[0].device if differs else None
        return torch.stack([each.to(first, non_blocking=True) for each in differs]).any() if differs else None


def _mark(tensor: Tensor) -> tuple[Any, ...]:
    # Inference tensors count no versions, sparse and wrapped ones have no single place in memory.
    version = -1 if tensor.is_inference() else tensor._version
    plain = tensor.layout is torch.strided and (type(tensor) is Tensor or isinstance(tensor, nn.Parameter))
    return id(tensor), version, tensor.data_ptr() if plain else 0


def _switches() -> tuple[Any, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch.is_autocast_cache_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )


def _norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """For each device the norms of its tensors' values; integers as they are."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.layout is torch.strided and tensor.numel() and not tensor.is_complex():
            by_device.setdefault(tensor.device, []).append(tensor.detach())
    norms = []
    for device, group in by_device.items():
        wide = widest(device)
        floats = [tensor for tensor in group if tensor.is_floating_point()]
        counts = [tensor.sum().to(wide) for tensor in group if not tensor.is_floating_point()]
        found = [norm.to(wide) for norm in torch._foreach_norm(floats, 1)] if floats else []
        norms.append(torch.stack(found + counts))
    return norms
