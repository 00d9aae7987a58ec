"""Adaptive gradient clipping: each unit's gradient is held to a share of the unit's weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from gradwatch.clipping.adaptive import on_host
from gradwatch.clipping.normalize import checked_eps
from gradwatch.clipping.norms import Measurement, measure_norms
from gradwatch.clipping.per_layer import LayerChoice, cosine_of, kept
from gradwatch.clipping.strategy import Decision, Gradients, Strategy
from gradwatch.clipping.threshold import Scheduled, Threshold

_SMALLEST: Final = 1e-6  # timm.utils.agc divides by no gradient norm below it


class AGC(Strategy):
    """Scale each unit's gradient G down to ``clip_factor * max(||W||, eps)``, where its norm is above that; W: weights.

    From Brock et al., 2021, arXiv:2102.06171, as ``timm.utils.agc.adaptive_clip_grad`` computes it: for float32 and
    float64 the result is the same to the last bit, unless the total norm overflows. A unit is a slice along the first
    dimension (the weights of one output), its norm is L2 over all other dimensions; a vector or a scalar is one unit.
    Clip event: some unit's ||G|| > its limit. A unit with a NaN becomes NaN; in one with an infinity the finite
    elements become 0 and the infinite ones NaN.

    ``clip_factor``: > 0, or a function of the step; ``eps``: > 0, so that weights of zero can move; ``layers``: a
    pattern or several, as in ``PerLayer``. The paper leaves out the last layer: ``layers="!head.*"``. Raises ValueError
    or TypeError when one of them is out of range.

    Costs some three operations for each layer and step, and of sharded ones (DTensor) two small collectives.
    """

    threshold_of = "unit"

    def __init__(
        self, clip_factor: Scheduled = 0.01, eps: float = 1e-3, layers: str | Iterable[str] | None = None
    ) -> None:
        self._clip_factor = Threshold("clip_factor", clip_factor)
        self._eps = checked_eps(eps, "AGC(0.01, eps=1e-3)")
        self._choice = LayerChoice(layers)
        self._factors: list[Tensor] = []

    @property
    def threshold(self) -> float:
        return self._clip_factor.value

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._clip_factor.set(value)

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        clip_factor = self._clip_factor.at(gradients.step)
        self._factors = []
        if not gradients.tensors:
            return Decision(1.0, False, clip_factor)
        like = measurement.norms
        each = [_unit_norms(gradient, like) for gradient in gradients.tensors]
        sizes = [norms.numel() for norms in each]
        norms = torch.cat(each)
        limits = torch.cat([_unit_norms(parameter.detach(), like) for parameter in gradients.parameters])
        limits = limits.clamp_(min=self._eps).mul_(clip_factor)
        factors = torch.where(norms < limits, 1.0, limits / norms.clamp(min=_SMALLEST))
        above = norms > limits
        chosen = self._choice.among(gradients, like.device)
        if chosen is not None:
            of_unit = torch.cat([one.expand(size) for one, size in zip(chosen.unbind(), sizes, strict=True)])
            factors, above = torch.where(of_unit, factors, 1.0), above & of_unit
        return self._decided(norms, factors, sizes, above.any(), clip_factor)

    def _decided(
        self, norms: Tensor, factors: Tensor, sizes: list[int], clipped: Tensor, clip_factor: float
    ) -> Decision:
        if on_host(factors) and bool((factors == 1).all()):
            return Decision(1.0, bool(clipped), clip_factor)
        self._factors = _split(factors, sizes)
        before = measure_norms(_split(norms, sizes), 2.0, uniform=True).norms
        after = measure_norms(_split(norms * factors, sizes), 2.0, uniform=True).norms
        of_layer = torch.where(before == 0, 1.0, after / before).to(norms.dtype)
        coefficient, cosine = kept(norms, factors, 2.0), cosine_of(norms, factors)
        if not on_host(factors):
            return Decision(coefficient, clipped, clip_factor, factors=of_layer, cosine=cosine)
        return Decision(coefficient.item(), bool(clipped), clip_factor, factors=of_layer, cosine=cosine.item())

    def apply(self, measurement: Measurement, gradients: Gradients, decision: Decision) -> None:
        factors, self._factors = self._factors, []
        for at in _touched(factors):
            multiply_units(gradients.tensors[at], factors[at])

    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        """Clips every layer as one unit with torch's own function, which has none for units. Waits for the device."""
        total = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        for parameter in parameters:
            length = max(float(torch.linalg.vector_norm(parameter.detach())), self._eps)
            torch.nn.utils.clip_grad_norm_([parameter], self.threshold * length)
        return total

    def describe(self) -> dict[str, Any]:
        return {
            "strategy": "AGC",
            "clip_factor": self._clip_factor.describe(),
            "eps": self._eps,
            "layers": self._choice.patterns,
        }

    def state_dict(self) -> dict[str, Any]:
        return {"threshold": self._clip_factor.save()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._clip_factor.load(state["threshold"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_factors": []}


def _unit_norms(tensor: Tensor, like: Tensor) -> Tensor:
    """L2 norm of each unit, shape (units,), whole on every rank; in the dtype and on the device of ``like``."""
    if tensor.is_sparse:
        return _sparse_unit_norms(tensor.coalesce(), like)
    dims = list(range(1, tensor.ndim)) or None
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=dims, dtype=None if tensor.is_complex() else like.dtype)
    if hasattr(norms, "full_tensor"):
        norms = norms.full_tensor()
    return norms.reshape(-1).to(like)


def _sparse_unit_norms(tensor: Tensor, like: Tensor) -> Tensor:
    values = tensor.values().reshape(tensor._nnz(), -1)
    squares: Tensor = torch.linalg.vector_norm(values, dim=1, dtype=like.dtype).square()
    if tensor.ndim == 1:
        return squares.sum().sqrt().reshape(1).to(like)
    return squares.new_zeros(tensor.shape[0]).index_add_(0, tensor.indices()[0], squares).sqrt().to(like)


def _split(units: Tensor, sizes: list[int]) -> list[Tensor]:
    """Units by layer."""
    return list(torch.split(units, sizes))


def multiply_units(gradient: Tensor, factors: Tensor) -> None:
    """Multiply ``gradient`` in place, unit by unit, by ``factors``, shape (units,)."""
    factors = factors.to(gradient.device)
    if gradient.ndim < 2:
        gradient.mul_(factors.squeeze())
        return
    if gradient.is_sparse:
        gradient, factors = gradient._values(), factors.index_select(0, gradient._indices()[0])
    elif hasattr(gradient, "to_local"):
        gradient, factors = gradient.to_local(), _of_shard(factors, gradient)
    gradient.mul_(factors.view(-1, *[1] * (gradient.ndim - 1)))


def _of_shard(factors: Tensor, gradient: Any) -> Tensor:
    """The part of ``factors``, whole on every rank, that belongs to this rank's rows of ``gradient``, a DTensor."""
    from torch.distributed.tensor import DTensor, Replicate

    rows = [placement if placement.is_shard(0) else Replicate() for placement in gradient.placements]
    whole = DTensor.from_local(factors, gradient.device_mesh, [Replicate()] * len(rows), run_check=False)
    return whole.redistribute(placements=rows).to_local()


def _touched(factors: list[Tensor]) -> Iterable[int]:
    """Which gradients to multiply: all, except that on the CPU those with factors of 1 throughout are known."""
    if not factors or not on_host(factors[0]):
        return range(len(factors))
    units = np.flatnonzero(torch.cat(factors).numpy() != 1)
    ends = np.cumsum([len(each) for each in factors])
    touched: list[int] = np.unique(np.searchsorted(ends, units, side="right")).tolist()
    return touched
