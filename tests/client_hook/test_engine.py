"""Steps with gradients of every kind: shared, late, of two optimizers; skipped, refused, or left to the scaler."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import gradwatch
import pytest
import torch
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.strategy import Decision, Gradients, Strategy
from gradwatch.engine import SKIPPED_BY_SCALER, SKIPPED_HERE, Engine
from gradwatch.layers import LayerTable
from gradwatch.monitor import NonFiniteGradientError
from gradwatch.recorder import SCALARS
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from tests.client_hook.conftest import KeepingSink, monitor_of


class EverySecond(Strategy):
    """Leaves every second step out."""

    skips = True
    threshold = 1.0

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        return Decision(1.0, gradients.step % 2 == 1, 1.0, skip=gradients.step % 2 == 1)

    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        return {"strategy": "EverySecond"}


def skipped(sink: KeepingSink) -> list[float]:
    return [float(value) for rows in sink.rows() for value in rows.scalars[:, SCALARS.index("skipped")]]


def test_tied_parameters_are_measured_and_clipped_once(sink: KeepingSink) -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    monitor = monitor_of(model, [], GlobalNorm(1.0), sink)
    model[0].weight.grad = torch.full((2, 2), 5.0)
    assert monitor.clip().item() == 10.0
    torch.testing.assert_close(model[0].weight.grad, torch.full((2, 2), 0.5))


@pytest.mark.parametrize("optimizer_type", [SGD, Adagrad, Adam, AdamW])
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_left_out_touches_neither_parameters_nor_state(
    optimizer_type: Any, fused: bool, sink: KeepingSink
) -> None:
    model = nn.Linear(3, 2)
    options = {"momentum": 0.9} if optimizer_type is SGD else {}
    optimizer = optimizer_type(model.parameters(), lr=0.1, fused=fused, **options)
    monitor = monitor_of(model, [optimizer], EverySecond(), sink, start_step=1)
    for _ in range(4):  # the first step is one that is left out
        optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        out = monitor.step % 2 == 1
        monitor.clip()
        optimizer.step()
        after = (model.state_dict(), optimizer.state_dict())
        assert all(torch.equal(before[0][name], after[0][name]) for name in before[0]) is out
        assert (str(before[1]) == str(after[1])) is out
    assert skipped(sink) == [SKIPPED_HERE, 0, SKIPPED_HERE, 0]


@pytest.mark.parametrize("nonfinite", ["record", "skip", "raise"])
def test_an_enabled_scaler_handles_its_own_overflow(nonfinite: Any, sink: KeepingSink) -> None:
    model = nn.Linear(2, 1)
    optimizer = SGD(model.parameters(), lr=0.1)
    monitor = monitor_of(model, [optimizer], GlobalNorm(1.0), sink, nonfinite=nonfinite)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
    for factor in (1.0, math.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(1, 2)).sum() * factor).backward()
        before = model.weight.detach().clone()
        monitor.clip(scaler=scaler)
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before, model.weight) is (factor == math.inf)
    assert scaler.get_scale() == 2.0
    assert skipped(sink) == [0, SKIPPED_BY_SCALER, 0] and sink.events == []


def test_without_a_scaler_the_three_ways_differ(sink: KeepingSink) -> None:
    for nonfinite, expected in (("record", 0), ("skip", SKIPPED_HERE)):
        model = nn.Linear(2, 1)
        monitor = monitor_of(model, [], GlobalNorm(1.0), sink, nonfinite=nonfinite)
        model.weight.grad = torch.tensor([[math.nan, 1.0]])
        monitor.clip()
        assert skipped(sink) == [expected] and (model.weight.grad is None) is (nonfinite == "skip")
    monitor = monitor_of(model, [], GlobalNorm(1.0), sink, nonfinite="raise")
    model.weight.grad = torch.tensor([[math.nan, 1.0]])
    with pytest.raises(NonFiniteGradientError, match="step 0: the gradient norm is not finite in weight"):
        monitor.clip()
    assert skipped(sink) == [SKIPPED_HERE] and model.weight.grad[0, 1].item() == 1.0 and monitor.step == 1


def test_parameters_of_another_optimizer_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizers: list[Optimizer] = [SGD(layer.parameters(), lr=0.1) for layer in model]
    table = LayerTable(model, optimizers)
    engine = Engine(table, optimizers, fold=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    taken = engine.take(GlobalNorm(0.5), list(model[1].parameters()), 0)
    engine.change(GlobalNorm(0.5), taken, "record", None, [optimizers[1]])
    assert taken.gradients.places is not None and taken.gradients.places.tolist() == [2, 3]
    assert [parameter.grad.max().item() == 1.0 for parameter in model.parameters() if parameter.grad is not None] == [
        True,
        True,
        False,
        False,
    ]
    assert table.groups == [0, 0, 1, 1]


def test_factors_are_applied_where_a_fused_optimizer_is_told_to_skip(sink: KeepingSink) -> None:
    model = nn.Linear(2, 2)
    optimizer = SGD(model.parameters(), lr=0.1, fused=True)
    monitor = monitor_of(model, [optimizer], gradwatch.PerLayer(0.5), sink)
    for _ in range(3):
        optimizer.zero_grad()
        (model(torch.ones(1, 2)) * 10).sum().backward()
        taken = monitor._engine.take(gradwatch.PerLayer(0.5), monitor._table.parameters, 0)
        # As on a device, where whether to skip is not known yet.
        undecided = taken._replace(decision=taken.decision._replace(skip=torch.tensor(False)))
        monitor._engine.change(gradwatch.PerLayer(0.5), undecided, "record", None, None)
        norms = [parameter.grad.norm().item() for parameter in model.parameters() if parameter.grad is not None]
        assert norms == pytest.approx([0.5, 0.5], rel=1e-5)
        optimizer.step()


def test_a_layer_that_joins_an_optimizer_joins_its_group() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = SGD(model[0].parameters(), lr=0.1)
    table = LayerTable(model, [optimizer])
    assert table.groups == [0, 0, -1, -1]
    optimizer.add_param_group({"params": list(model[1].parameters())})
    table.has_grown()
    assert table.groups == [0, 0, 1, 1]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_skip_under_a_scaler_skips_the_optimizers_that_it_would_step(
    fused: bool, value: float, sink: KeepingSink
) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizers: list[Optimizer] = [AdamW(layer.parameters(), lr=0.1, fused=fused) for layer in model]
    monitor = monitor_of(model, optimizers, GlobalNorm(1.0), sink, nonfinite="skip")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=1000)
    for step in range(4):
        before = torch.cat([parameter.detach().ravel() for parameter in model.parameters()])
        for optimizer in optimizers:
            optimizer.zero_grad()
        scaler.scale(model(torch.ones(1, 2)).square().sum()).backward()
        if step == 2:
            first = next(model.parameters()).grad
            assert first is not None
            first[0, 0] = value
        monitor.clip(scaler=scaler)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        after = torch.cat([parameter.detach().ravel() for parameter in model.parameters()])
        assert torch.equal(before, after) is (step == 2)
    assert skipped(sink) == [0, 0, SKIPPED_BY_SCALER, 0]


def test_a_scaler_of_another_make_is_left_to_its_owner(sink: KeepingSink) -> None:
    class Other:
        def is_enabled(self) -> bool:
            return True

    model = nn.Linear(2, 2)
    monitor = monitor_of(model, [SGD(model.parameters(), lr=0.1)], GlobalNorm(1.0), sink)
    model.weight.grad = torch.full((2, 2), 10.0)
    assert monitor.clip(scaler=Other()).item() == 20.0 and sink.events == []
