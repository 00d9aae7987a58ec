"""The tripwire sees each way to move a training, and nothing where nothing moved."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gradwatch.probe.training_state import TrainingState
from torch import nn


def trained() -> Any:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Embedding(4, 2, sparse=True))
    model[1](model[0](torch.randn(5, 3))).sum().backward()
    model[2](torch.tensor([1, 1])).sum().backward()
    return model


@torch.no_grad()
def _add_to_weight(model: Any) -> None:
    model[0].weight.add_(1)


MOVES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "weight": ("parameters", _add_to_weight),
    "weight replaced": ("parameters", lambda model: setattr(model[0], "weight", nn.Parameter(torch.zeros(3, 3)))),
    "storage": ("parameters", lambda model: setattr(model[0].weight, "data", torch.zeros(3, 3))),
    "buffer": ("buffers", lambda model: model[1](torch.randn(5, 3))),
    "gradient": ("gradients", lambda model: model[0].weight.grad.mul_(2)),
    "gradient gone": ("gradients", lambda model: setattr(model[0].weight, "grad", None)),
    "flag": ("training flags", lambda model: model[1].eval()),
    "torch's numbers": ("random numbers", lambda model: torch.rand(1)),
    "NumPy's numbers": ("random numbers", lambda model: np.random.rand()),
    "Python's numbers": ("random numbers", lambda model: random.random()),
    "grad mode": ("torch's switches", lambda model: torch.set_grad_enabled(False)),
    "default dtype": ("torch's switches", lambda model: torch.set_default_dtype(torch.float64)),
}


@pytest.mark.parametrize("move", MOVES)
def test_it_names_what_moved(move: str) -> None:
    model = trained()
    before = TrainingState(model)
    named, act = MOVES[move]
    try:
        act(model)
        assert named in TrainingState(model).moved(before)
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)


def test_a_look_moves_nothing() -> None:
    model = trained()
    with torch.no_grad():
        model[0].bias[0] = float("nan")
    before = TrainingState(model, with_values=True)
    model.eval()
    model[1](model[0](torch.randn(5, 3, generator=torch.Generator())))
    model.train()
    after = TrainingState(model, with_values=True)
    assert after.moved(before) == []
    moved = after.values_moved(before)
    assert moved is not None and not moved


@pytest.mark.parametrize("part", ["weight", "running_mean", "num_batches_tracked"])
def test_values_tell_of_writes_that_count_no_version(part: str) -> None:
    model = trained()
    before = TrainingState(model, with_values=True)
    getattr(model[1], part).data.view(-1)[0] += 1
    after = TrainingState(model, with_values=True)
    moved = after.values_moved(before)
    assert moved is not None and bool(moved)
    assert TrainingState(model).values_moved(before) is None
