"""The order of the first forward, where it differs from the order of registration."""

from __future__ import annotations

import copy
import pickle

import torch
from gradwatch.measure.execution_order import ExecutionOrder
from torch import Tensor, nn


class Backwards(nn.Module):
    """Registers three layers and runs them in reverse; the middle one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        run: Tensor = self.first(self.second(self.second(self.third(x))))
        return run


def test_ranks_follow_execution() -> None:
    model = Backwards()
    order = ExecutionOrder(model)
    model(torch.zeros(1, 2))
    owners = [id(model.first), id(model.first), id(model.second), id(model.third), None]
    assert order.ranks(owners) == [2, 3, 1, 0, 4]


def test_without_a_forward_the_order_is_that_of_registration() -> None:
    model = Backwards()
    assert ExecutionOrder(model).ranks([id(model.third), id(model.first), None]) == [0, 1, 2]


def test_other_models_are_not_noted_and_the_hook_goes_away() -> None:
    model, other = Backwards(), Backwards()
    order = ExecutionOrder(model)
    other(torch.zeros(1, 2))
    order.close()
    model(torch.zeros(1, 2))
    assert order.ranks([id(model.third), id(model.first)]) == [0, 1]


def test_a_model_copied_or_pickled_meanwhile_stays_whole() -> None:
    model = Backwards()
    order = ExecutionOrder(model)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert twin(torch.zeros(1, 2)).shape == (1, 2)
    model(torch.zeros(1, 2))
    order.close()
    assert order.ranks([id(model.first), id(model.third)]) == [1, 0]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_module_whose_weights_its_parent_uses_runs_with_its_parent() -> None:
    model = nn.TransformerEncoderLayer(4, 1, 8)
    order = ExecutionOrder(model)
    model(torch.zeros(2, 1, 4))
    owners = [id(model.self_attn), id(model.self_attn.out_proj), id(model.linear1), id(model.norm2)]
    assert order.ranks(owners) == [0, 1, 2, 3]


def test_compiling_the_model_afterwards_warns_of_nothing() -> None:
    model = Backwards()
    order = ExecutionOrder(model)
    compiled = torch.compile(model, backend="eager")
    compiled(torch.zeros(1, 2))
    order.close()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compiled(torch.zeros(1, 2))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
