"""Limits for each layer: what is kept of them, and how gradients are scaled down to them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.adaptive import Adaptive, Number, capped, choose, on_host, read, write
from gradwatch.clipping.scaling import EPSILON
from gradwatch.clipping.state import LayerState
from gradwatch.clipping.strategy import Decision, Gradients
from gradwatch.clipping.threshold import Scheduled


class Layered(Adaptive):
    """Its state holds one number for each layer; NaN: none yet."""

    def __init__(self, cap: Scheduled | None, **initial: float | list[float]) -> None:
        super().__init__(cap, **initial)
        self._layers = LayerState()

    def of_layers(self, gradients: Gradients, device: torch.device) -> Tensor:
        """The numbers of the layers that have a gradient, shape (gradients,). Not to be changed."""
        known = self._layers.on(device, gradients.layers.names)
        return known if gradients.places is None else known.index_select(0, gradients.places)

    def change_layers(self, gradients: Gradients, values: Tensor) -> None:
        """Set these numbers; layers without a gradient keep theirs."""
        known = self._layers.on(values.device, gradients.layers.names)
        if gradients.places is None:
            write(known, values)
        else:
            known.index_copy_(0, gradients.places, values)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "layers": self._layers.save()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._layers.load(state["layers"])


def scale_layers(norms: Tensor, limits: Tensor, cap: Number) -> tuple[Decision, Tensor, Number]:
    """Scale every gradient down to its own limit, then all together to ``cap``.

    ``norms``: L2 norms, and ``limits``, above 0 or infinity, both of shape (gradients,), in the widest dtype. Gives the
    decision, the norms after their own limits, and the part that ``cap`` leaves of those. Clip event: a gradient was
    scaled. The threshold is the largest total norm that the limits and ``cap`` let pass. A norm that is not finite
    spoils its own gradient, as in ``PerLayer``; a NaN spreads to all where there is a cap.
    """
    within = norms <= limits
    threshold = capped(read(torch.linalg.vector_norm(limits)), cap)
    if on_host(norms) and within.all() and torch.linalg.vector_norm(norms).item() <= cap:
        return Decision(1.0, False, threshold), norms, 1.0
    factors = (limits / norms).masked_fill_(within, 1.0)
    left = (norms * factors).masked_fill_(factors == 0, 0.0)  # of an infinite norm nothing is left
    total = read(torch.linalg.vector_norm(left))
    part = choose((total <= cap) | (cap == math.inf), 1.0, cap / (total + EPSILON))
    factors = factors * part
    clipped = (norms > limits).any() | (total > cap)
    coefficient, cosine = _left(norms, factors)
    if not on_host(norms):
        return Decision(coefficient, clipped, threshold, factors=factors, cosine=cosine), left, part
    return Decision(coefficient.item(), bool(clipped), threshold, factors=factors, cosine=cosine.item()), left, part


def _left(norms: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Total norm after / before, and the cosine between both gradients: sum(c n^2) / (|n| |c n|)."""
    before = norms / torch.linalg.vector_norm(norms)
    after = before * factors
    coefficient = torch.linalg.vector_norm(after)
    cosine = (after.dot(before) / coefficient).clamp(max=1.0)
    same = (factors == 1).all()  # then 0 / 0 and inf / inf are NaN without a reason
    return coefficient.masked_fill(same, 1.0), cosine.masked_fill(same, 1.0)
