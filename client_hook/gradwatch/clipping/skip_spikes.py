"""SkipSpikes: leave out, or clip, steps whose norm stands out from a window of those before."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from torch import Tensor

from gradwatch.clipping.adaptive import (
    Number,
    Truth,
    at_least,
    capped,
    choose,
    enters,
    in_range,
    number_of,
    read,
    scale_above,
    write,
)
from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.strategy import Decision, Gradients
from gradwatch.clipping.threshold import Scheduled
from gradwatch.clipping.window import Windowed, filled, mean_and_deviation, percentile, push

By = Literal["sigma", "median"]
Action = Literal["skip", "clip"]


class SkipSpikes(Windowed):
    """Skip a step whose total norm is a spike against the last ``window`` total norms (without this one).

    - ``by="sigma"``: above their mean + ``sigma`` sample standard deviations (as OLMo-core's ``SkipStepOptimizer``,
      ``src/olmo_core/optim/skip_step_optimizer.py``, whose window, sigma and least count are the defaults here);
    - ``by="median"``: above ``scale`` times their median, which one spike in the window cannot move (the idea of
      icefall's ``ScaledAdam``, which clips at 2.0 times a median; 10.0 for skipping is gradwatch's own choice).

    ``action="skip"`` leaves the step out, parameters and optimizer state stay. A norm that is not finite is always
    skipped, from the first step on. After ``max_consecutive`` spikes skipped in a row the next is taken, clipped to the
    limit: a lasting change of the norms cannot stop the training for ever. Clip event: a skipped step, that one, or a
    total norm > ``cap``. A skipped step's coefficient is 0.

    ``action="clip"`` scales a spike to the limit (as Levanter's ``ClipUpdateNorm``, ``lib/levanter/src/levanter/optim/
    clip_update_norm.py``: ``sigma=3.0``). Clip event: total norm > limit.

    Norms enter the window as measured, spikes too, so that the limit cannot collapse; those that are 0 or not finite
    never do. Nothing is a spike before the window holds ``min_count`` norms (default: half the window). The standard
    deviation counts as at least a millionth of the mean (Levanter: as 1e-6), or rounding would make spikes of norms
    that do not vary. ``cap``: see ``Adaptive``. Raises ValueError or TypeError for arguments out of range.
    """

    def __init__(
        self,
        window: int = 128,
        sigma: float = 6.0,
        min_count: int | None = None,
        by: By = "sigma",
        scale: float = 10.0,
        action: Action = "skip",
        max_consecutive: int = 10,
        cap: Scheduled | None = None,
    ) -> None:
        self.window = at_least("window", window, 2, "128 is the default")
        least = max(2, window // 2) if min_count is None else min_count
        self.min_count = at_least("min_count", least, 2, "leave it out to wait for half the window")
        if least > window:
            raise ValueError(f"min_count must be at most window, not {least} with a window of {window}")
        if by not in get_args(By):
            raise ValueError(f'by must be "sigma" or "median", not {by!r}')
        if action not in get_args(Action):
            raise ValueError(f'action must be "skip" or "clip", not {action!r}')
        self.sigma = in_range("sigma", sigma, 0, math.inf, "6.0 for skipping, 3.0 for clipping")
        self.scale = in_range("scale", scale, 1, math.inf, "10.0 for skipping, 2.0 for clipping")
        self.by, self.action, self.skips = by, action, action == "skip"
        self.max_consecutive = at_least("max_consecutive", max_consecutive, 1, "10 is the default")
        super().__init__(cap, window, consecutive=0.0)

    def follow(self, norm: Number, state: dict[str, Tensor]) -> Number:
        window = state["norms"]
        count = filled(window)
        if self.by == "median":
            limit = self.scale * percentile(window, 50, count)
        else:
            mean, deviation = mean_and_deviation(window, count)
            limit = mean + self.sigma * choose(deviation > 1e-6 * mean, deviation, 1e-6 * mean)
        push(window, norm, enters(norm, squared=True))
        return choose(count >= self.min_count, limit, math.inf)

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        if not self.skips or not gradients.tensors:
            return super().decide(measurement, gradients)
        norm, state = number_of(measurement.total), self._state.on(measurement.total.device)
        limit = self.follow(norm, state)
        skip, forced = self._skipped(norm, limit, state["consecutive"])
        cap = self._cap.at(gradients.step)
        decision = scale_above(measurement, choose(forced, capped(limit, cap), cap), skip)
        return self.remember(decision._replace(threshold=capped(limit, cap)))

    def _skipped(self, norm: Number, limit: Number, consecutive: Tensor) -> tuple[Truth, Truth]:
        """Whether to skip the step, and whether it is a spike that must not be skipped any more."""
        row = read(consecutive)
        finite = norm < math.inf
        spike = (norm > limit) & finite
        forced = spike & (row >= self.max_consecutive)
        skipped_spike = spike & (row < self.max_consecutive)
        skip = skipped_spike | (norm == math.inf) | (norm != norm)
        # A step that is not finite neither ends nor lengthens a row of skipped spikes.
        write(consecutive, choose(finite, (row + 1) * skipped_spike, row))
        return skip, forced

    def arguments(self) -> dict[str, Any]:
        names = ("window", "sigma", "min_count", "by", "scale", "action", "max_consecutive")
        return {name: getattr(self, name) for name in names}
