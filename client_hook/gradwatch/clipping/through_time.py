"""Clipping inside the backward pass of an unrolled recurrent network, at every time step."""

from __future__ import annotations

import torch
from torch import Tensor


class ThroughTime:
    """Clips the gradient of a hidden state on its way back through time, before the parameters' gradients are added up.

    ``clip_value``: every element is clamped to ``[-clip_value, clip_value]`` (as Graves, 2013, arXiv:1308.0850, page 6,
    does with the derivatives inside an LSTM). ``max_norm``: the L2 norm over the whole hidden state, batch included, is
    scaled down to it. Exactly one of them, above 0; raises ValueError otherwise.

    Call it on each new hidden state of an unrolled cell::

        through_time = monitor.through_time(clip_value=0.1)
        for inputs in sequence:
            hidden = through_time(cell(inputs, hidden))

    A fused ``nn.LSTM`` or ``nn.GRU`` has no hidden states to hand over. Clip event: a time step whose gradient was
    above the limit. Each ``monitor.clip`` records the share of such time steps since the clip before (``NAME_clipped``)
    and their largest norm before clipping (``NAME_norm``).
    """

    def __init__(self, clip_value: float | None = None, max_norm: float | None = None, name: str = "hidden") -> None:
        given = [limit for limit in (clip_value, max_norm) if limit is not None]
        if len(given) != 1 or not float(given[0]) > 0:
            raise ValueError("give either clip_value or max_norm, a number above 0, such as clip_value=0.1")
        self.name = name
        self._by_value = clip_value is not None
        self._limit = float(given[0])
        self._events: list[Tensor] = []
        self._norms: list[Tensor] = []

    def __call__(self, hidden: Tensor) -> Tensor:
        """Gives ``hidden`` back, after asking for its gradient to be clipped. Without a gradient to come: nothing."""
        if hidden.requires_grad:
            hidden.register_hook(self._clip)  # type: ignore[no-untyped-call]
        return hidden

    def _clip(self, gradient: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(gradient, dtype=torch.float32)
        self._norms.append(norm)
        if self._by_value:
            self._events.append((gradient.abs() > self._limit).any())
            return gradient.clamp(-self._limit, self._limit)
        self._events.append(norm > self._limit)
        return gradient * torch.clamp(self._limit / (norm + 1e-6), max=1.0).to(gradient.dtype)

    def take(self) -> dict[str, Tensor]:
        """Series of the time steps since the last call, on their device; nothing when there were none."""
        events, self._events = self._events, []
        norms, self._norms = self._norms, []
        if not events:
            return {}
        share = torch.stack(events).float().mean()
        return {f"{self.name}_clipped": share, f"{self.name}_norm": torch.stack(norms).max()}
