"""Clipping every layer by its own norm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.adaptive import on_host
from gradwatch.clipping.global_norm import checked_norm_type
from gradwatch.clipping.norms import Measurement, measure_norms
from gradwatch.clipping.scaling import EPSILON, coefficient_of
from gradwatch.clipping.state import widest_float
from gradwatch.clipping.strategy import Decision, Gradients, Layers, Strategy
from gradwatch.clipping.threshold import Scheduled, Threshold
from gradwatch.console import say
from gradwatch.globs import Globs


class PerLayer(Strategy):
    """Multiply each layer's gradient by ``min(1, max_norm / (its norm + 1e-6))``; a layer is one parameter tensor.

    The rule of keras' ``clipnorm`` and of DINO's ``clip_gradients`` (Caron et al., 2021, arXiv:2104.14294), in the
    arithmetic of ``torch.nn.utils.clip_grad_norm_`` on each parameter alone: for float32 and float64 the result is the
    same to the last bit, unless the total norm overflows. Clip event: some layer's norm > ``max_norm``.

    ``max_norm``: threshold, > 0, or a function of the step. ``norm_type``: p >= 1 or infinity. ``layers``: a pattern or
    several, such as ``["encoder.*", "!*.bias"]``; the layers they do not choose are left alone. Raises ValueError or
    TypeError when one of them is out of range.

    The cosine needs L2 norms: with another ``norm_type`` it costs one more pass over the gradients, on the CPU at
    clipped steps, elsewhere at every step. A layer with a non-finite norm comes out as torch leaves it: NaN throughout
    after a NaN; zeros, and NaN in place of the infinite elements, after an infinity. Coefficient and cosine are then
    NaN, and the other layers are clipped as ever.
    """

    threshold_of = "layer"

    def __init__(self, max_norm: Scheduled, norm_type: float = 2.0, layers: str | Iterable[str] | None = None) -> None:
        self.norm_type = checked_norm_type(norm_type)
        self._max_norm = Threshold("max_norm", max_norm)
        self._choice = LayerChoice(layers)

    @property
    def threshold(self) -> float:
        return self._max_norm.value

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._max_norm.set(value)

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        limit = self._max_norm.at(gradients.step)
        norms = measurement.norms
        if not gradients.tensors:
            return Decision(1.0, False, limit)
        chosen = self._choice.among(gradients, norms.device)
        if on_host(norms) and norms.max().item() < 0.999 * limit - EPSILON:
            return Decision(1.0, False, limit)  # whatever the rounding, every factor is 1
        factors = coefficient_of(norms, limit)
        above = norms.to(widest_float(norms.device)) > limit
        if chosen is not None:
            factors, above = torch.where(chosen, factors, 1.0), above & chosen
        return decide_by_factor(measurement, gradients, factors, above.any(), limit)

    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        """Clips every layer: which ones ``layers`` chooses is not known without their names."""
        total = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], self.norm_type)
        for parameter in parameters:
            torch.nn.utils.clip_grad_norm_([parameter], self.threshold, self.norm_type)
        return total

    def describe(self) -> dict[str, Any]:
        return {
            "strategy": "PerLayer",
            "max_norm": self._max_norm.describe(),
            "norm_type": "inf" if math.isinf(self.norm_type) else self.norm_type,
            "layers": self._choice.patterns,
        }

    def state_dict(self) -> dict[str, Any]:
        return {"threshold": self._max_norm.save()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._max_norm.load(state["threshold"])


class LayerChoice:
    """The layers that patterns choose, as a mask on the device; None chooses all."""

    def __init__(self, patterns: str | Iterable[str] | None) -> None:
        self._globs = None if patterns is None else Globs(patterns)
        self._names: list[str] = []
        self._mask: Tensor | None = None
        self._told = False

    @property
    def patterns(self) -> list[str] | None:
        return None if self._globs is None else self._globs.patterns

    def among(self, gradients: Gradients, device: torch.device) -> Tensor | None:
        """Which gradients belong to chosen layers, shape (gradients,), bool, on ``device``; None: all do."""
        if self._globs is None:
            return None
        mask = self._of_all(self._globs, gradients.layers, device)
        return mask if gradients.places is None else mask.index_select(0, gradients.places.to(device))

    def _of_all(self, globs: Globs, layers: Layers, device: torch.device) -> Tensor:
        if self._mask is None or self._mask.device != device or self._names != list(layers.names):
            self._names = list(layers.names)
            taken = [globs(name) for name in self._names]
            self._mask = torch.tensor(taken, dtype=torch.bool, device=device)
            if not any(taken) and not self._told:
                self._told = True
                say(f"layers={globs.patterns} chooses none of the layers, such as {self._names[0]!r}: none is clipped")
        return self._mask

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mask": None}


def decide_by_factor(
    measurement: Measurement, gradients: Gradients, factors: Tensor, clipped: Tensor, threshold: float
) -> Decision:
    """The decision to multiply each gradient by its own of ``factors``, shape (gradients,), none above 1.

    ``clipped``: 0-dimensional. Coefficient and cosine are those of ``kept`` and ``cosine_of``.
    """
    if on_host(factors) and bool((factors == 1).all()):
        return Decision(1.0, bool(clipped), threshold)
    norms = lengths = measurement.norms
    if measurement.norm_type != 2:
        lengths = measure_norms(gradients.tensors, 2.0, measurement.uniform).norms
    coefficient, cosine = kept(norms, factors, measurement.norm_type), cosine_of(lengths, factors)
    if not on_host(factors):
        return Decision(coefficient, clipped, threshold, factors=factors, cosine=cosine)
    return Decision(coefficient.item(), bool(clipped), threshold, factors=factors, cosine=cosine.item())


def kept(norms: Tensor, factors: Tensor, norm_type: float) -> Tensor:
    """Total norm after / before multiplying parts of these ``norms`` by ``factors``; 1 where nothing was to keep.

    Both of shape (parts,).
    """
    before = _without_scale(norms)
    total = torch.linalg.vector_norm(before, norm_type)
    return torch.where(total == 0, 1.0, torch.linalg.vector_norm(before * factors, norm_type) / total)


def cosine_of(norms: Tensor, factors: Tensor) -> Tensor:
    """Cosine between the gradient before and after: ``sum(c n^2) / (sqrt(sum(n^2)) sqrt(sum(c^2 n^2)))``.

    ``norms``: L2 norms n of the parts, ``factors``: c >= 0, both of shape (parts,). 1 where the gradient is zero.
    """
    before = _without_scale(norms)
    length = torch.linalg.vector_norm(before)
    half = torch.linalg.vector_norm(before * factors.to(before.dtype).sqrt())
    cosine = (half / length) * (half / torch.linalg.vector_norm(before * factors))
    return torch.where(length == 0, 1.0, cosine.clamp(max=1.0))


def _without_scale(norms: Tensor) -> Tensor:
    """``norms`` over the largest of them, in float64 where the device has it, so that no square overflows."""
    wide = norms.to(widest_float(norms.device))
    largest = wide.max()
    return wide / torch.where(largest > 0, largest, 1.0)
