"""Names of layers, and modules in place of layers where there are too many."""

from __future__ import annotations

import copy

import torch
from gradwatch import frames
from gradwatch.layers import Layer, LayerTable, fold_into_modules
from torch import nn


def names(table: LayerTable) -> list[str]:
    return [layer.name for layer in table.layers]


def test_layers_are_named_once_and_frozen_ones_belong_to_them() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2, bias=False))
    model[1].weight = nn.Parameter(torch.zeros(2, 3))
    model.tied = model[0].weight
    model[0].bias.requires_grad_(False)
    table = LayerTable(model, [])
    assert len(names(table)) == len(set(names(table))) == 3
    assert "0.bias" in names(table)


def test_prefixes_of_wrappers_are_left_out() -> None:
    model = nn.Linear(2, 2)
    wrapper = nn.DataParallel(model)
    assert names(LayerTable(wrapper, [])) == ["weight", "bias"]
    compiled = nn.Sequential()
    compiled.add_module("_orig_mod", model)
    assert names(LayerTable(compiled, [])) == ["weight", "bias"]


def test_parameters_that_only_an_optimizer_knows_are_measured_too() -> None:
    model, extra = nn.Linear(2, 2), nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([*model.parameters(), extra], lr=0.1)
    table = LayerTable(model, [optimizer])
    assert names(table) == ["weight", "bias", "optimizer0.group0.2"]
    assert not table.has_grown()
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(4))]})
    assert table.has_grown() and not table.has_grown()
    assert names(table)[-1] == "optimizer0.group1.0"


def test_uniform_means_one_device_and_dtype() -> None:
    assert LayerTable(nn.Linear(2, 2), []).uniform
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    assert not LayerTable(mixed, []).uniform


def test_a_copy_knows_its_own_parameters() -> None:
    table = copy.deepcopy(LayerTable(nn.Linear(2, 2), []))
    assert [table.place[id(parameter)] for parameter in table.parameters] == [0, 1]


def test_a_hundred_thousand_layers_become_modules() -> None:
    layers = [Layer(f"block{n // 1000}.part{n // 10}.layer{n}.weight", (), 2, n) for n in range(100_000)]
    folded, into = fold_into_modules(layers)
    assert len(folded) == 10_000 <= frames.MAX_LAYERS
    assert folded[into[12_345]].name == "block12.part1234"
    assert sum(layer.numel for layer in folded) == 200_000


def test_a_flat_model_becomes_one_module() -> None:
    folded, into = fold_into_modules([Layer(f"weight{n}", (), 1, None) for n in range(20_000)])
    assert [layer.name for layer in folded] == ["(model)"] and set(into) == {0}


def test_long_names_keep_their_end() -> None:
    model = nn.Module()
    inner = nn.Module()
    inner.add_module("x" * 2000, nn.Linear(1, 1))
    model.add_module("outer", inner)
    (weight, _) = names(LayerTable(model, []))
    assert len(weight) == frames.MAX_NAME and weight.endswith("x.weight")
