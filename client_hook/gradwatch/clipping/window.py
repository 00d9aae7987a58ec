"""A window over the last norms, and what is asked of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradwatch.clipping.adaptive import Adaptive, Number, Truth, choose, on_host, write
from gradwatch.clipping.threshold import Scheduled


class Windowed(Adaptive):
    """Its state is a window over the last norms, the newest last; NaN fills what is still empty."""

    def __init__(self, cap: Scheduled | None, size: int, **initial: float | list[float]) -> None:
        super().__init__(cap, norms=[math.nan] * size, **initial)
        self._size = size

    def state_dict(self) -> dict[str, Any]:
        saved = super().state_dict()
        saved["state"]["norms"] = [norm for norm in saved["state"]["norms"] if norm == norm]
        return saved

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """A checkpoint of a longer window gives its newest norms."""
        norms = list(state.get("state", {}).get("norms", ()))[-self._size :]
        padded = [math.nan] * (self._size - len(norms)) + norms
        super().load_state_dict({**state, "state": {**state.get("state", {}), "norms": padded}})


def push(window: Tensor, norm: Number, accepted: Truth) -> None:
    """Let ``norm`` in as the newest, if ``accepted``; the oldest falls out."""
    if isinstance(norm, Tensor):
        moved = torch.cat((window.narrow(0, 1, len(window) - 1), norm.reshape(1)))
        write(window, choose(accepted, moved, window))
    elif accepted:
        values = window.numpy()
        values[:-1] = values[1:]
        values[-1] = norm


def filled(window: Tensor) -> Number:
    """How many norms the window holds."""
    if on_host(window):
        values = window.numpy()
        return float(np.count_nonzero(values == values))
    return (len(window) - window.isnan().sum()).to(window.dtype)


def percentile(window: Tensor, percent: float, count: Number) -> Number:
    """Of the ``count`` norms in the window, interpolated linearly, as ``numpy.percentile`` does; NaN if there is none.

    On the CPU by selection instead of sorting: a tenth of ``torch.nanquantile``'s price at 1,000 norms.
    """
    if isinstance(count, Tensor):
        place = ((count - 1) * (percent / 100)).clamp(min=0)
        low = place.floor()
        around = window.sort().values.index_select(0, torch.stack((low, place.ceil())).long())
        left, right = around.unbind()
        return left + (right - left) * (place - low)
    if not count:
        return math.nan
    at = (count - 1) * (percent / 100)
    below, above = math.floor(at), math.ceil(at)
    values = np.partition(window.numpy()[-int(count) :], (below, above))
    return float(values[below] + (values[above] - values[below]) * (at - below))


def mean_and_deviation(window: Tensor, count: Number) -> tuple[Number, Number]:
    """Mean and sample standard deviation of the ``count`` norms in the window; NaN if there are too few."""
    if not isinstance(count, Tensor):
        if count < 2:
            return math.nan, math.nan
        deviation, mean = torch.std_mean(window[-int(count) :])
        return mean.item(), deviation.item()
    empty = window.isnan()
    mean = window.masked_fill(empty, 0).sum() / count
    squares = (window - mean).masked_fill(empty, 0).square().sum()
    return mean, (squares / (count - 1)).sqrt()
