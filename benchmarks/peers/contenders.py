"""Who trains against whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of training: what is logged, and by what."""

    key: str
    title: str
    server: Literal["", "gradwatch", "trackio"] = ""
    """A server process that the training streams to, started anew for each training."""
    logs_norms: bool = True
    """Whether every layer's norm of every step is logged; else nothing is, or something else."""


BASELINE: Final = "torch"
CONTROL: Final = "torch-again"

# In the order of the first repeat. Baseline and control stand apart, so that a drift of the machine shows in A/A.
CONTENDERS: Final = (
    Contender(BASELINE, "torch clipping alone", logs_norms=False),
    Contender("gradwatch", "gradwatch, live server", server="gradwatch"),
    Contender("norms", "norms to a list, not logged", logs_norms=False),
    Contender("tensorboard", "TensorBoard, `add_scalar`"),
    Contender("wandb", "W&B offline, `run.log`"),
    Contender(CONTROL, "torch clipping alone, again", logs_norms=False),
    Contender("trackio", "Trackio, local database"),
    Contender("trackio-server", "Trackio, live server", server="trackio"),
    Contender("wandb-watch", "W&B offline, `watch` at every step", logs_norms=False),
    Contender("wandb-watch-default", "W&B offline, `watch` as it is (1 in 1000)", logs_norms=False),
)


def chosen(only: str) -> tuple[Contender, ...]:
    """Those named in ``only`` (comma separated; "" = all), and always the baseline and its control."""
    keys = {contender.key for contender in CONTENDERS}
    wanted = {key.strip() for key in only.split(",") if key.strip()}
    if unknown := wanted - keys:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; choose among {', '.join(sorted(keys))}")
    return tuple(c for c in CONTENDERS if not wanted or c.key in wanted | {BASELINE, CONTROL})
