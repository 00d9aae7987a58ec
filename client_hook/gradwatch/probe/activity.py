"""What the kinds of probes have in common: they ask for one piece of work at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.optim import Optimizer

from gradwatch.probe.landscape_rows import LandscapeRows
from gradwatch.probe.reading import Reading
from gradwatch.probe.shadow import Closure, Shadow

Values = list[npt.NDArray[np.float64]]


class Moment(NamedTuple):
    """One clip, before the gradients are changed."""

    step: int
    clipped: Tensor | bool
    """Whether this is a clip event; a tensor where only a device knows."""


class Piece(NamedTuple):
    """The work of one step."""

    kind: str
    """Pieces of one kind are expected to cost the same."""
    begin: Callable[[], Reading | None]
    """Does the work; what it wants to know of it later."""
    finish: Callable[[Values, float], None] | None = None
    """Called at a later step with the values read and the seconds that the piece took."""
    calls_probe: bool = False
    """Whether it runs the user's closure."""


class Activity(Protocol):
    """One kind of probe."""

    weight: float
    """Its share of the time, beside those of the others."""
    spent: float
    """Seconds that its pieces took."""

    @property
    def must_go_on(self) -> bool:
        """Whether its next piece belongs to this very step, whatever it costs."""
        ...

    def next_piece(self, moment: Moment) -> Piece | None:
        """The next piece of work; None: nothing to do at this step."""
        ...


@dataclass(slots=True)
class Bench:
    """What all activities work with."""

    shadow: Shadow
    originals: Sequence[Tensor]
    """The weights that are trained; ``shadow.weights`` are their copies."""
    closures: Sequence[Closure]
    optimizers: Sequence[Optimizer]
    send: Callable[[LandscapeRows], None]
    cost: Callable[[], tuple[float, float]]
    """Seconds spent on probes, and seconds of training, so far."""
    number: Callable[[], int]
    """The number of a new probe."""
    memory: int = 0
    """Bytes that probing takes at most."""
    seed: int = 0

    def loss(self, buffers: Sequence[Tensor], closure: int = 0) -> Tensor:
        """The loss where the shadow stands. Everywhere the same random numbers, so that weights alone differ."""
        return self.shadow.loss(self.closures[closure], buffers, self.seed)

    def about(self, **more: Any) -> dict[str, Any]:
        """What is written under each picture."""
        weights = self.originals
        names = {type(optimizer).__name__: None for optimizer in self.optimizers}
        return {
            "mode": self.shadow.mode,
            "dtype": " and ".join(dict.fromkeys(str(weight.dtype).removeprefix("torch.") for weight in weights)),
            "batches": 1,
            "optimizer": ", ".join(names),
            "hooks_left_out": self.shadow.hooks_left_out,
            "buffers": "frozen at the anchor",
            "memory": self.memory,
            **more,
        }


def number_of(values: Values, at: int) -> float:
    """The ``at``-th value read, which is a single number."""
    return float(values[at][0])
