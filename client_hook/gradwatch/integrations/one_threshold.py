"""Who says the threshold, when a trainer has one of its own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.strategy import Strategy
from gradwatch.watching import watch

Clip = float | Strategy | Literal["trainer"] | None
"""What ``watch`` takes, or "trainer": the trainer's own threshold, which gradwatch then clips by in its place."""


def one_threshold(clip: Clip, trainers: Strategy | None, said: str) -> float | Strategy | None:
    """What to clip by. ``trainers``: the trainer's own clipping, None where it has none; ``said``: how it was told.

    None means that gradwatch measures and the trainer clips as it was told.
    Raises ValueError when both say a threshold and they differ: adding gradwatch must not change a training unnoticed.
    """
    if isinstance(clip, str):
        if clip != "trainer":
            raise TypeError(f'clip must be a number, a strategy, None or "trainer" (the trainer\'s own), not {clip!r}')
        return trainers
    asked = clip if isinstance(clip, Strategy) or clip is None else GlobalNorm(clip)
    if asked is not None and trainers is not None and asked.describe() != trainers.describe():
        raise ValueError(
            f"two thresholds: {said}, and gradwatch's clip={clip!r}. Leave clip= out and gradwatch clips by the "
            f"trainer's own; or leave the trainer's out"
        )
    return asked


def check_options(options: Mapping[str, Any]) -> None:
    """Raises TypeError when one of ``options`` is no argument of ``gradwatch.watch``; now, not when training begins."""
    taken = {"model", "optimizer", "clip"} & set(options)
    if taken:
        raise TypeError(f"{', '.join(sorted(taken))}: this is the integration's to say")
    inspect.signature(watch).bind_partial(None, **options)
