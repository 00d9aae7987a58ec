"""Which snapshots are kept, and that they are copies."""

from __future__ import annotations

import weakref

import pytest
import torch
from gradwatch.probe.snapshots import Snapshots
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor


def offered(capacity: int, offers: int, every: int = 1) -> Snapshots:
    """``offers`` offers, one each ``every`` steps, of a weight that holds the step."""
    snapshots = Snapshots(capacity)
    for count in range(offers):
        if snapshots.wants(count):
            snapshots.add(count * every, [torch.full((2,), float(count * every))])
    return snapshots


@given(st.integers(2, 17), st.integers(1, 400), st.integers(1, 5))
def test_they_are_evenly_spread_over_all_offers(capacity: int, offers: int, every: int) -> None:
    snapshots = offered(capacity, offers, every)
    steps = [snapshot.step for snapshot in snapshots.taken]
    assert steps == [count * snapshots.spacing * every for count in range(len(steps))]
    assert len(steps) <= capacity
    # No more than one spacing is missing at the end, so the newest is never far behind; while full, two.
    missing = offers - 1 - steps[-1] // every
    assert missing < snapshots.spacing * (2 if len(steps) == capacity else 1)
    if offers <= capacity:
        assert snapshots.spacing == 1 and len(steps) == offers
    else:
        assert len(steps) >= capacity // 2
    assert all(snapshot.weights[0].tolist() == [float(snapshot.step)] * 2 for snapshot in snapshots.taken)


def test_they_double_their_spacing_when_full() -> None:
    steps = [[snapshot.step for snapshot in offered(4, offers).taken] for offers in (4, 5, 7, 8, 9)]
    assert steps == [[0, 1, 2, 3], [0, 2, 4], [0, 2, 4, 6], [0, 2, 4, 6], [0, 4, 8]]


def test_no_more_than_the_capacity_is_ever_alive() -> None:
    snapshots, alive = Snapshots(5), list[weakref.ref[Tensor]]()
    for count in range(200):
        if snapshots.wants(count):
            snapshots.add(count, [torch.zeros(3)])
            alive.append(weakref.ref(snapshots.taken[-1].weights[0]))
        assert sum(reference() is not None for reference in alive) == len(snapshots.taken) <= 5


def test_they_are_copies_and_the_weights_are_only_read() -> None:
    weights = [torch.nn.Parameter(torch.randn(3, 4).t()), torch.nn.Parameter(torch.ones((), dtype=torch.float64))]
    versions = [weight._version for weight in weights]
    snapshots = Snapshots(2)
    snapshots.add(7, weights)
    kept = snapshots.taken[0].weights
    assert all(torch.equal(copy, weight) for copy, weight in zip(kept, weights, strict=True))
    assert [weight._version for weight in weights] == versions
    assert not any(copy.requires_grad or isinstance(copy, torch.nn.Parameter) for copy in kept)
    with torch.no_grad():
        weights[1].add_(1)
    assert kept[1].item() == 1.0


def test_their_memory_is_known_beforehand() -> None:
    weights = [torch.zeros(3, 4), torch.zeros((), dtype=torch.float64), torch.zeros(2, dtype=torch.bfloat16)]
    assert Snapshots.nbytes(3, weights) == 3 * (48 + 8 + 4)


@pytest.mark.parametrize("capacity", [-1, 0, 1])
def test_one_snapshot_is_no_path(capacity: int) -> None:
    with pytest.raises(ValueError, match="2 at least"):
        Snapshots(capacity)
