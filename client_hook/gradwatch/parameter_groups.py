"""What optimizers step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer


def members(optimizer: Optimizer) -> Iterator[Tensor]:
    """All parameters of ``optimizer``, group by group."""
    for group in optimizer.param_groups:
        yield from group["params"]


def first(optimizer: Optimizer) -> Tensor:
    """Its first parameter; of an optimizer without any, an empty tensor."""
    return next(members(optimizer), torch.empty(0))


def signature(optimizers: Sequence[Optimizer]) -> list[int]:
    """Changes when the parameters of ``optimizers`` do, unless only inner ones of a group are exchanged.

    Looked at before every clip: two identities a group, because going through all parameters would cost more than
    recording them.
    """
    said: list[int] = []
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            own = group["params"]
            said += (len(own), id(own[0]), id(own[-1])) if own else (0,)
    return said
