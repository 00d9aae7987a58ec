"""Gradient norms: of every gradient on its own and of all together."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

_PIECE: Final = 1 << 16  # elements; widened to float32 they fit into a core's cache
_HALF: Final = (torch.float16, torch.bfloat16)


class Measurement(NamedTuple):
    """Norms before clipping, on the device of the gradients."""

    norms: Tensor
    """One norm per gradient, shape (gradients,), floating point."""
    total: Tensor
    """The norm of ``norms``, 0-dimensional: the total norm."""
    norm_type: float
    uniform: bool = True
    """All gradients are dense and share one device and dtype, so that one foreach call serves them."""


def measure_norms(gradients: list[Tensor], norm_type: float, uniform: bool) -> Measurement:
    """Per-gradient norms and total norm.

    For float32 and float64 bit-identical to ``torch.nn.utils.get_total_norm``. Those of half precision are computed
    and kept in float32 (torch returns them in half precision: 708 for a true 706.4). On the CPU, where asking costs
    nothing, an infinite total norm of finite gradients (their square overflows above 1.8e19) is computed again without
    overflow.
    """
    measured = measure_as_torch(gradients, norm_type, uniform, wide=True)
    if measured.total.device.type == "cpu" and measured.total.item() == math.inf:
        return _without_overflow(gradients, measured)
    return measured


def measure_as_torch(gradients: list[Tensor], norm_type: float, uniform: bool, *, wide: bool = False) -> Measurement:
    """Per-gradient norms and total norm, overflow, half precision and all, as torch's own clipping sees them.

    ``wide``: those of half precision in float32 instead. One foreach call serves gradients of one device and dtype
    (``uniform``). Whatever it cannot take (several of either, sparse gradients, empty ones under p = inf) goes gradient
    by gradient.
    """
    if not gradients:
        return Measurement(torch.zeros(0), torch.tensor(0.0), norm_type)
    half = wide and gradients[0].dtype in _HALF
    if not uniform:
        return _measure_each(gradients, norm_type, wide)
    try:
        norms = _measure_alike(gradients, norm_type, half)
    except (RuntimeError, NotImplementedError):
        return _measure_each(gradients, norm_type, wide)
    return Measurement(norms, torch.linalg.vector_norm(norms, norm_type), norm_type)


def _measure_alike(gradients: list[Tensor], norm_type: float, half: bool) -> Tensor:
    first = gradients[0]
    if norm_type == math.inf and first.device.type == "cpu" and not first.is_complex():
        return _largest_elements(gradients, torch.float32 if half else first.dtype)
    if half:
        return _half_norms(gradients, norm_type)
    return _in_one_tensor(torch._foreach_norm(gradients, norm_type))


def _largest_elements(gradients: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Infinity norms on the CPU: the same numbers as torch's norm gives, NaN included, up to 25 times as fast."""
    ends = map(torch.aminmax, gradients)
    return torch.tensor([max(high.item(), -low.item()) for low, high in ends], dtype=dtype)


def _half_norms(gradients: list[Tensor], norm_type: float) -> Tensor:
    """Norms of gradients in half precision, in float32.

    On the CPU large ones go in pieces: torch widens a whole tensor before it adds up, which leaves the cache (6 times
    slower at 16 M elements) and adds all elements one after the other (relative error 4e-4 there, in pieces 3e-6).
    """
    on_host = gradients[0].device.type == "cpu"
    pieces = [
        torch.split(gradient.view(-1), _PIECE) if on_host and _large(gradient) else (gradient,)
        for gradient in gradients
    ]
    flat = [piece for pieces_of_one in pieces for piece in pieces_of_one]
    norms = _in_one_tensor(torch._foreach_norm(flat, norm_type, dtype=torch.float32))
    if len(flat) == len(gradients):
        return norms
    parts = torch.split(norms, [len(pieces_of_one) for pieces_of_one in pieces])
    return torch.stack([torch.linalg.vector_norm(part, norm_type) for part in parts])


def _large(gradient: Tensor) -> bool:
    return gradient.numel() > 4 * _PIECE and gradient.is_contiguous()


def _in_one_tensor(norms: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    first = norms[0]
    if first.device.type == "cpu" and first.dtype is torch.float32:
        # The same numbers as torch.stack gives, for two thirds of its price at hundreds of tensors.
        return torch.from_numpy(np.fromiter(map(Tensor.item, norms), np.float32, len(norms)))
    return torch.stack(tuple(norms))


def _measure_each(gradients: list[Tensor], norm_type: float, wide: bool) -> Measurement:
    device = gradients[0].device
    norms = [_norm(gradient, norm_type, wide) for gradient in gradients]
    if any(hasattr(norm, "full_tensor") for norm in norms):
        whole = torch.stack(_reduced(norms, device))
        return Measurement(whole, torch.linalg.vector_norm(whole, norm_type), norm_type, uniform=False)
    each = torch.stack([norm.to(device) for norm in norms])
    if wide and any(gradient.dtype in _HALF for gradient in gradients):
        return Measurement(each, torch.linalg.vector_norm(each, norm_type), norm_type, uniform=False)
    # torch groups by device and dtype before it adds up, so its own function gives the total: same order, same bits.
    filled = [dense(gradient) for gradient in gradients if gradient.numel()]
    return Measurement(each, torch.nn.utils.get_total_norm(filled, norm_type), norm_type, uniform=False)


def dense(gradient: Tensor) -> Tensor:
    """The stored values of a sparse gradient; any other as it is."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _norm(gradient: Tensor, norm_type: float, wide: bool) -> Tensor:
    values = dense(gradient)
    half = wide and values.dtype in _HALF
    if not values.numel():
        values = values.new_zeros(1)
    norm: Tensor = torch.linalg.vector_norm(values, norm_type, dtype=torch.float32 if half else None)
    return norm


def _reduced(norms: list[Tensor], device: torch.device) -> list[Tensor]:
    """Norms of sharded gradients (DTensor) are partial on each rank: one collective for each mesh and placement."""
    whole: list[Tensor] = [norm.to(device) if not hasattr(norm, "full_tensor") else norm for norm in norms]
    alike: dict[object, list[int]] = {}
    for at, norm in enumerate(norms):
        if hasattr(norm, "full_tensor"):
            alike.setdefault((norm.device_mesh, norm.placements, norm.dtype), []).append(at)  # type: ignore[attr-defined]
    for places in alike.values():
        full = torch.stack([norms[at] for at in places]).full_tensor()  # type: ignore[attr-defined]
        for at, norm in zip(places, full.unbind(), strict=True):
            whole[at] = norm.to(device)
    return whole


def _without_overflow(gradients: list[Tensor], measured: Measurement) -> Measurement:
    """The same norms in float64, over gradients scaled by their largest element, if all elements are finite."""
    values = [dense(gradient) for gradient in gradients]
    largest = max((float(value.abs().max()) for value in values if value.numel()), default=0.0)
    if not 0 < largest < math.inf:
        return measured
    p = measured.norm_type
    norms = torch.stack([_norm(value.to(_widest(value)) / largest, p, wide=False) for value in values])
    total = torch.linalg.vector_norm(norms, p) * largest
    narrow = total.to(measured.total.dtype)
    return Measurement(norms * largest, narrow if torch.isfinite(narrow) else total, p, measured.uniform)


def _widest(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64
