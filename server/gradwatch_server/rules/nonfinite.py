"""The first NaN or infinity, and the layer it came from. One finding per unbroken row of bad steps.

The ordinary overflow of a GradScaler is none, unless its loss scale does not recover.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..store.decode import Mask
from .findings import LEFT_OUT, MOST_LAYERS, Finding, Moment, Rows, State

NAME: Final = "nonfinite"

# Overflows in a row that a GradScaler is given to find its scale. It begins at 2**16 and halves with each: after so
# many the scale is below 1, where OPT's trainings were about to diverge (arXiv:2205.01068, section 2.5).
PATIENCE: Final = 20


def judge(state: State, rows: Rows) -> tuple[State, list[Finding], list[Moment]]:
    """Findings over ``rows``. State: the episode, and the row of overflows, that the last row belongs to, if any."""
    layers_bad = ~np.isfinite(rows.norms)
    if rows.present is not None:
        layers_bad &= rows.present
    loss_bad = rows.loss_given & ~np.isfinite(rows.loss)
    overflowed = rows.overflowed
    bad = (layers_bad.any(axis=1) | loss_bad | ~np.isfinite(rows.total_norm)) & ~overflowed
    findings: list[Finding] = []
    moments: list[Moment] = []
    episode: State | None = state.get("episode")
    for start, end in _stretches(bad):
        if episode is None or start > 0:
            title, text, layers = _describe(rows, start, layers_bad[start])
            if rows.skipped[start] == LEFT_OUT:
                text += " The hook left the step out, so the weights are as before."
            step = int(rows.steps[start])
            episode = {"first": step, "count": 0, "title": title, "text": text, "layers": layers}
            moments.append(Moment("nonfinite", step, _time(rows, start), title))
        episode = {**episode, "count": episode["count"] + end - start}
        findings.append(_finding(episode, int(rows.steps[end - 1])))
    if len(bad) and not bad[-1]:
        episode = None
    overflows, warnings = _unrecovered(state.get("overflows"), rows, overflowed, layers_bad)
    return {"episode": episode, "overflows": overflows}, findings + warnings, moments


def _unrecovered(
    overflows: State | None, rows: Rows, overflowed: Mask, layers_bad: NDArray[np.bool_]
) -> tuple[State | None, list[Finding]]:
    """Rows of overflows that outlast all patience: the scale is not what is wrong."""
    findings: list[Finding] = []
    for start, end in _stretches(overflowed):
        if overflows is None or start > 0:
            overflows = {"first": int(rows.steps[start]), "count": 0, "text": "", "layers": []}
        before, count = overflows["count"], overflows["count"] + end - start
        overflows = {**overflows, "count": count}
        if count <= PATIENCE:
            continue
        if before <= PATIENCE:
            last_straw = start + PATIENCE - before
            overflows |= _describe_overflows(rows, last_straw, overflows["first"], layers_bad[last_straw])
        findings.append(_overflow_finding(overflows, int(rows.steps[end - 1])))
    return (None if len(overflowed) and not overflowed[-1] else overflows), findings


def _describe_overflows(rows: Rows, row: int, first: int, bad: NDArray[np.bool_]) -> State:
    hit = sorted((rows.layers[at] for at in np.flatnonzero(bad).tolist()), key=lambda layer: -layer.order)
    layers = [layer.name for layer in hit[:MOST_LAYERS]]
    step = int(rows.steps[row])
    suspect = (
        f"at step {step} the gradient of {layers[0]} is the first in backward order that is not finite"
        if layers
        else f"at step {step} every layer's norm is finite and the total norm is not"
    )
    text = (
        f"The GradScaler left out every step from step {first} on, over {PATIENCE} in a row, and lowered the loss "
        f"scale each time. An overflow that a smaller scale does not end comes from the training itself: {suspect}. "
        "Meanwhile no weight changes."
    )
    return {"text": text, "layers": layers}


def _overflow_finding(overflows: State, last: int) -> Finding:
    first, count = overflows["first"], overflows["count"]
    title = f"The loss scale does not recover: steps are left out from step {first} on"
    text = f"{overflows['text']} Left out: {count} steps, up to step {last}."
    return Finding(NAME, "warning", title, text, first, last, count, overflows["layers"])


def _stretches(bad: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _finding(episode: State, last: int) -> Finding:
    first, count = episode["first"], episode["count"]
    text = episode["text"] + (f" It went on for {count} steps, up to step {last}." if count > 1 else "")
    return Finding(NAME, "critical", episode["title"], text, first, last, count, episode["layers"])


def _describe(rows: Rows, row: int, bad: NDArray[np.bool_]) -> tuple[str, str, list[str]]:
    """Title, text and layers of an episode that begins at ``row``."""
    step = int(rows.steps[row])
    hit = [rows.layers[at] for at in np.flatnonzero(bad).tolist()]
    among = f" {len(hit)} of {len(rows.layers)} layers are not finite." if len(hit) > 1 else ""
    loss = float(rows.loss[row])
    if rows.loss_given[row] and not np.isfinite(loss):
        if not hit:
            title = f"The loss is not finite at step {step}"
            return title, f"Step {step}: the loss is {loss}, while every gradient is finite.", []
        # Backward carries a NaN of the loss into every layer, so only the forward order tells where it can come from.
        hit.sort(key=lambda layer: layer.order)
        first = hit[0].name
        title = f"NaN or Inf born in the forward pass at step {step}, at or before {first}"
        text = (
            f"Step {step}: the loss itself is {loss}, so it was born in the forward pass, at or before {first} "
            f"(the first layer in execution order whose gradient is not finite).{among}"
        )
        return title, text, [layer.name for layer in hit[:MOST_LAYERS]]
    if not hit:
        title = f"The total norm overflowed at step {step}"
        norm = float(rows.total_norm[row])
        return title, f"Step {step}: the total norm is {norm}, while every layer's norm is finite.", []
    # Backward runs from the layer executed last to the first, and carries a NaN along from where it arose.
    hit.sort(key=lambda layer: -layer.order)
    first = hit[0].name
    known = f"the loss is finite ({loss:.6g})" if rows.loss_given[row] else "no loss was given to tell the forward pass"
    title = f"Non-finite gradient in {first} at step {step}"
    text = f"Step {step}: the gradient of {first} is the first in backward order that is not finite; {known}.{among}"
    return title, text, [layer.name for layer in hit[:MOST_LAYERS]]


def _time(rows: Rows, row: int) -> float:
    time = float(rows.times[row])
    return time if np.isfinite(time) else 0.0
