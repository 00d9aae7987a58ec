"""The first NaN or infinity, and the layer it came from. One finding per unbroken row of bad steps."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .findings import MOST_LAYERS, Finding, Moment, Rows, State

NAME: Final = "nonfinite"


def judge(state: State, rows: Rows) -> tuple[State, list[Finding], list[Moment]]:
    """Findings over ``rows``. State: the episode that the last row belongs to, if any."""
    layers_bad = ~np.isfinite(rows.norms)
    if rows.present is not None:
        layers_bad &= rows.present
    loss_bad = rows.loss_given & ~np.isfinite(rows.loss)
    bad = layers_bad.any(axis=1) | loss_bad | ~np.isfinite(rows.total_norm)
    findings: list[Finding] = []
    moments: list[Moment] = []
    episode: State | None = state.get("episode")
    for start, end in _stretches(bad):
        if episode is None or start > 0:
            title, text, layers = _describe(rows, start, layers_bad[start])
            step = int(rows.steps[start])
            episode = {"first": step, "count": 0, "title": title, "text": text, "layers": layers}
            moments.append(Moment("nonfinite", step, _time(rows, start), title))
        episode = {**episode, "count": episode["count"] + end - start}
        findings.append(_finding(episode, int(rows.steps[end - 1])))
    if len(bad) and not bad[-1]:
        episode = None
    return {"episode": episode}, findings, moments


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
