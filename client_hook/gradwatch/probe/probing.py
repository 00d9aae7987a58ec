"""What a user asks of probing."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from gradwatch.probe.shadow import Closure


@dataclass(frozen=True, slots=True)
class Probing:
    """``closures``: each gives the loss of the model it is handed on a batch of its own, the same at every call.

    ``budget``: share of the training's time. The model is held weakly: a recording must not keep it alive.
    """

    model: weakref.ref[nn.Module]
    closures: Sequence[Closure]
    budget: float
