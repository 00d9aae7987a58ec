"""AutoClip: a percentile of the norms seen lately."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from gradwatch.clipping.adaptive import Number, at_least, choose, enters, in_range
from gradwatch.clipping.threshold import Scheduled
from gradwatch.clipping.window import Windowed, filled, percentile, push


class AutoClip(Windowed):
    """Clip the total norm at a percentile of the last ``history`` total norms, this step's among them.

    Seetharaman et al., 2020 (arXiv:2007.14469; 10 is the paper's percentile). The reference implementation
    (pseeth/autoclip) keeps every norm since the first; here the last ``history`` of those that are finite and above 0.
    Clip event: total norm > that percentile (or > ``cap``). So about (100 - ``percentile``) % of the steps are clipped.

    ``percentile``: above 0, up to 100 (never clips); ``history``: norms to look back on, at least 1; ``warmup``: norms
    to be seen before the percentile counts, up to ``history`` (the reference has no warm-up: its very first steps are
    clipped by the few norms before them); ``cap``: see ``Adaptive``. Raises ValueError or TypeError otherwise.
    """

    def __init__(
        self, percentile: float = 10.0, history: int = 1000, warmup: int = 0, cap: Scheduled | None = None
    ) -> None:
        self.percentile = in_range("percentile", percentile, 0, math.nextafter(100, 101), "10.0 is the paper's")
        self.history = at_least("history", history, 1, "1000 is the default")
        self.warmup = at_least("warmup", warmup, 0, "0 counts the percentile from the first step on")
        if warmup > history:
            raise ValueError(f"warmup must be at most history, not {warmup} with a history of {history}")
        super().__init__(cap, history)

    def follow(self, norm: Number, state: dict[str, Tensor]) -> Number:
        window = state["norms"]
        before = filled(window)
        accepted = enters(norm)
        push(window, norm, accepted)
        count = before + accepted
        count = count.clamp(max=self.history) if isinstance(count, Tensor) else min(count, self.history)
        return choose((before >= self.warmup) & (count > 0), percentile(window, self.percentile, count), math.inf)

    def arguments(self) -> dict[str, Any]:
        return {"percentile": self.percentile, "history": self.history, "warmup": self.warmup}
