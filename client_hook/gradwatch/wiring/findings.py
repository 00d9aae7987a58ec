"""Where a clip is wired wrongly: told from what gradients went through between two steps, and how to put it right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final


class Finding(StrEnum):
    """A way to wire the clip that leaves gradients unclipped, or clips them as something else."""

    BEFORE_BACKWARD = "clip before backward"
    AFTER_STEP = "clip after step"
    BACKWARD_BETWEEN = "backward between clip and step"
    SCALED = "clip of scaled gradients"
    MICRO_BATCH = "clip in every micro-batch"
    TWICE = "clip twice"
    SUBSET = "clip of a subset"
    NEVER = "no clip"
    ZEROED = "gradients zeroed before the clip"
    IN_BACKWARD = "step within backward"


_RIGHT: Final = "loss.backward(); monitor.clip(loss); optimizer.step(); optimizer.zero_grad()"
SENTENCES: Final = {
    Finding.BEFORE_BACKWARD: (
        "the clip runs before loss.backward(), where there is nothing to clip yet, so the steps are not clipped; "
        f"write: {_RIGHT}"
    ),
    Finding.AFTER_STEP: (
        f"the clip runs after optimizer.step(), which has used the gradients unclipped by then; write: {_RIGHT}"
    ),
    Finding.BACKWARD_BETWEEN: (
        "loss.backward() runs between the clip and optimizer.step(), so the step uses gradients that were not "
        "clipped; clip after the last backward, and inside the closure where step() takes one; "
        f"write: {_RIGHT}"
    ),
    Finding.SCALED: (
        "the clip sees gradients that are still multiplied by the loss scale, so its threshold means something else at "
        "every scale; write: scaler.unscale_(optimizer) before the clip, or monitor.clip(loss, scaler=scaler) with "
        "gradwatch.watch(model, optimizer, ...)"
    ),
    Finding.MICRO_BATCH: (
        "the clip runs in every micro-batch, so what has been accumulated is clipped again each time; write: "
        "loss.backward() in every micro-batch, then once for all: if (i + 1) % accumulation == 0: "
        "monitor.clip(loss); optimizer.step(); optimizer.zero_grad()"
    ),
    Finding.TWICE: (
        "the same gradients are clipped twice before one optimizer.step(), and each clip is recorded as a step; write "
        f"one of them only: {_RIGHT}"
    ),
    Finding.SUBSET: (
        "optimizer.step() updates {count} of {all} parameters without any clip covering them (the first has the shape "
        "{shape}); write: monitor = gradwatch.watch(model, optimizer, ...) and monitor.clip(loss), or give "
        "clip_grad_norm_ all parameters of the optimizer; if this is meant, nothing is wrong"
    ),
    Finding.NEVER: (
        "{count} optimizer steps and no clip: nothing is clipped and nothing recorded; "
        f"write: {_RIGHT}"
    ),
    Finding.ZEROED: (
        "the gradients are gone when the clip runs: zero_grad() comes between loss.backward() and the clip; write: "
        "optimizer.zero_grad(); loss.backward(); monitor.clip(loss); optimizer.step()"
    ),
    Finding.IN_BACKWARD: (
        "the optimizer steps within loss.backward(), in a hook, so that gradients are used before the clip sees them; "
        "write gradwatch.clip_grad_norm_([parameter], 1.0) into the hook before its step(), or without the hook: "
        f"{_RIGHT}"
    ),
}  # fmt: skip

# Over the marks of gradient_probe, between two steps; the first that fits all probes of an optimizer.
_USELESS_THEN_BACKWARD: Final = re.compile(r"o[b+]$")
_PATTERNS: Final = (
    (Finding.BACKWARD_BETWEEN, re.compile(r"[c=][b+]$")),
    (Finding.ZEROED, re.compile(r"[b+]z$")),
    (Finding.MICRO_BATCH, re.compile(r"[c=][b+]c=*$")),
    (Finding.TWICE, re.compile(r"[b+]c=+$")),
)
_ADDED_TO_CLIPPED: Final = re.compile(r"[c=]\+c=*$")


def judge(traces: Sequence[str], *, clip_came_first: bool) -> Finding | None:
    """What is wrong with the clip of one step, given the marks of some parameters that the step updates.

    Every one of them must show it. A clip that found nothing new, and a backward after it, are the same to a gradient
    whether the clip runs before the backward or after the step: ``clip_came_first`` tells, of the training's start.
    """
    if not traces:
        return None
    if all(_USELESS_THEN_BACKWARD.search(trace) for trace in traces):
        return Finding.BEFORE_BACKWARD if clip_came_first else Finding.AFTER_STEP
    for finding, pattern in _PATTERNS:
        if all(pattern.search(trace) for trace in traces) and (
            # Gradients in one bucket share their version: one that certainly was not zeroed in between tells it of all.
            finding is not Finding.MICRO_BATCH or any(_ADDED_TO_CLIPPED.search(trace) for trace in traces)
        ):
            return finding
    return None
