"""ZClip: norms that stand out from a running mean by too many standard deviations."""

from __future__ import annotations

import math
from typing import Any, Final, Literal, get_args

from torch import Tensor

from gradwatch.clipping.adaptive import Adaptive, Number, Truth, at_least, choose, enters, in_range, read, write
from gradwatch.clipping.threshold import Scheduled

Mode = Literal["zscore", "percentile"]
ClipOption = Literal["adaptive_scaling", "mean"]

EPSILON: Final = 1e-6
"""The reference adds it to the standard deviation."""


class ZClip(Adaptive):
    """Clip spikes: total norms of more than ``z_thresh`` standard deviations above their running mean.

    Kumar et al., 2025 (arXiv:2504.02507); formulas and defaults are those of the authors' package zclip 1.0.0. With
    the mean m, the population standard deviation s and z = (norm - m) / (s + 1e-6), a spike is scaled down to

    - ``mode="zscore", clip_option="adaptive_scaling"``: ``clip_factor`` * (m + ``z_thresh`` s ``z_thresh`` / z);
    - ``mode="zscore", clip_option="mean"``: m;
    - ``mode="percentile"``: m + ``z_thresh`` s, which is also what counts as a spike there.

    The first ``warmup`` norms only make the first m and s. After that both are exponential averages with weight
    ``alpha`` on the past; a spike enters them as scaled down, or not at all (``skip_update_on_spike``). ``cap`` holds
    always, in the warm-up, too; at the default of 1.0, the reference's, a model whose norms are mostly above 1 is
    clipped at 1.0 like under ``GlobalNorm(1.0)``: write ``cap=None`` to clip spikes only.

    Clip event: total norm > what it is scaled down to. Recorded as the threshold: that, and at other steps the norm
    from which on a step would be a spike, or ``cap`` if that is less.

    As in the reference, norms that never vary (s = 0) make every larger one a spike, and a lasting jump is let in only
    slowly, the higher the slower. Unlike there, norms that are 0 or not finite never enter m and s: after an all-zero
    warm-up the reference would multiply every gradient by 0 for ever, after one NaN it would never clip again.
    Raises ValueError or TypeError for arguments out of range.
    """

    def __init__(
        self,
        z_thresh: float = 2.5,
        alpha: float = 0.97,
        warmup: int = 25,
        cap: Scheduled | None = 1.0,
        mode: Mode = "zscore",
        clip_option: ClipOption = "adaptive_scaling",
        clip_factor: float = 1.0,
        skip_update_on_spike: bool = False,
    ) -> None:
        self.z_thresh = in_range("z_thresh", z_thresh, 0, math.inf, "2.5 is the paper's")
        self.alpha = in_range("alpha", alpha, 0, 1, "0.97 is the paper's")
        self.warmup = at_least("warmup", warmup, 1, "25 is the paper's")
        if mode not in get_args(Mode):
            raise ValueError(f'mode must be "zscore" or "percentile", not {mode!r}')
        if clip_option not in get_args(ClipOption):
            raise ValueError(f'clip_option must be "adaptive_scaling" or "mean", not {clip_option!r}')
        self.mode = mode
        self.clip_option = clip_option
        self.clip_factor = in_range("clip_factor", clip_factor, 0, math.nextafter(1, 2), "1.0 is the paper's")
        self.skip_update_on_spike = bool(skip_update_on_spike)
        super().__init__(cap, mean=0.0, variance=0.0, count=0.0)

    def follow(self, norm: Number, state: dict[str, Tensor]) -> Number:
        mean, variance, count = read(state["mean"]), read(state["variance"]), read(state["count"])
        active = count >= self.warmup
        spike, limit = self._limit(norm, mean, variance**0.5)
        spike = spike & active
        accepted = enters(norm, squared=True)
        self._learn(choose(spike, limit, norm), active, accepted & self._learns(spike), state)
        write(state["count"], count + accepted)
        return choose(active, limit, math.inf)

    def _limit(self, norm: Number, mean: Number, deviation: Number) -> tuple[Truth, Number]:
        """Whether ``norm`` is a spike, and what it may be at most."""
        if self.mode == "percentile":
            most = mean + self.z_thresh * deviation
            return norm > most, most
        most = mean + self.z_thresh * (deviation + EPSILON)
        spike = norm > most
        if self.clip_option == "mean":
            return spike, choose(spike, mean, most)
        z = choose(spike, (norm - mean) / (deviation + EPSILON), self.z_thresh)
        scaled = self.clip_factor * (mean + self.z_thresh * deviation * (self.z_thresh / z))
        return spike, choose(spike, scaled, most)

    def _learns(self, spike: Truth) -> Truth:
        if not self.skip_update_on_spike:
            return True
        return spike.logical_not() if isinstance(spike, Tensor) else not spike

    def _learn(self, norm: Number, active: Truth, accepted: Truth, state: dict[str, Tensor]) -> None:
        """Exponential averages; in the warm-up plain ones, step by step (Welford), so that no norm need be kept."""
        mean, variance, count = read(state["mean"]), read(state["variance"]), read(state["count"])
        rate = choose(active, 1 - self.alpha, 1 / (count + 1))
        past = choose(active, self.alpha, count / (count + 1))
        moved = choose(active, past * mean + rate * norm, mean + rate * (norm - mean))
        # The reference measures the distance from the new mean; over the warm-up Welford's product gives its variance.
        distance = (norm - moved) * choose(active, norm - moved, norm - mean)
        write(state["mean"], choose(accepted, moved, mean))
        write(state["variance"], choose(accepted, past * variance + rate * distance, variance))

    def arguments(self) -> dict[str, Any]:
        names = ("z_thresh", "alpha", "warmup", "mode", "clip_option", "clip_factor", "skip_update_on_spike")
        return {name: getattr(self, name) for name in names}
