"""Copies of the weights from along the way, few enough to keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Snapshot(NamedTuple):
    """Where the weights were."""

    step: int
    weights: list[Tensor]


class Snapshots:
    """At most ``capacity`` snapshots, evenly spread over all that was offered.

    It takes every ``spacing``-th offer, beginning with the first. When it is full, every second snapshot is dropped and
    the spacing doubles, so at any time at least half of the capacity is in use, once it was full. Memory: ``capacity``
    copies of the weights, see ``nbytes``; what is dropped is freed before anything is copied.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 2:
            raise ValueError("a capacity of 2 at least")
        self.capacity = capacity
        self.spacing = 1
        self.taken: list[Snapshot] = []

    @staticmethod
    def nbytes(capacity: int, weights: Sequence[Tensor]) -> int:
        """Bytes of ``capacity`` copies."""
        return capacity * sum(weight.numel() * weight.element_size() for weight in weights)

    def wants(self, count: int) -> bool:
        """Whether the offer number ``count`` (from 0 on, one after the other) is to be added."""
        full = len(self.taken) >= self.capacity
        return count % (2 * self.spacing if full else self.spacing) == 0

    @torch.no_grad()
    def add(self, step: int, weights: Sequence[Tensor]) -> None:
        """Copy ``weights``, which are only read; to be called for the offers that are wanted and no other."""
        if len(self.taken) >= self.capacity:
            del self.taken[1::2]
            self.spacing *= 2
        copies = [torch.empty_like(weight, requires_grad=False) for weight in weights]
        torch._foreach_copy_(copies, list(weights))
        self.taken.append(Snapshot(step, copies))
