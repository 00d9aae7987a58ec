"""State on a device, and its way through a checkpoint."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import pytest
import torch
from gradwatch.clipping.state import LayerState, State, widest_float
from torch.utils._pytree import tree_leaves

CPU, META = torch.device("cpu"), torch.device("meta")


def test_values_become_float64_tensors_once() -> None:
    state = State(mean=0.5, norms=[1.0, math.nan])
    tensors = state.on(CPU)
    assert tensors["mean"].dtype is torch.float64 and tensors["mean"].shape == ()
    assert tensors["norms"].shape == (2,) and tensors["norms"][1].isnan().item()
    assert state.on(CPU) is tensors and list(state) == ["mean", "norms"]
    assert widest_float(torch.device("mps")) is torch.float32


def test_another_device_gets_the_values_as_they_are_by_then() -> None:
    state = State(mean=0.0)
    state.on(CPU)["mean"].fill_(3.0)
    assert state.on(META)["mean"].device == META


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])
def test_a_copy_goes_its_own_way(travel: Any) -> None:
    state = State(mean=0.0, norms=[0.0, 0.0])
    state.on(CPU)["mean"].fill_(3.0)
    twin = travel(state)
    state.on(CPU)["mean"].fill_(4.0)
    assert not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(state.__getstate__()))
    assert twin.save() == {"mean": 3.0, "norms": [0.0, 0.0]}


def test_every_bit_survives_json() -> None:
    state, resumed = State(mean=0.0, norms=[0.0] * 3), State(mean=0.0, norms=[0.0] * 3)
    state.on(CPU)["mean"].fill_(0.1 + 0.2)
    state.on(CPU)["norms"].copy_(torch.tensor([1 / 3, 5e-324, 1.7e308], dtype=torch.float64))
    saved = json.loads(json.dumps(state.save()))
    resumed.load(saved)
    assert resumed.save() == state.save()
    assert torch.equal(resumed.on(CPU)["norms"], state.on(CPU)["norms"])
    saved["norms"][0] = 9.0
    resumed.load(saved)
    saved["norms"][0] = 10.0
    assert resumed.on(CPU)["norms"][0].item() == 9.0


@pytest.mark.parametrize(
    "saved",
    [
        {"mean": 1.0},
        {"mean": 1.0, "norms": [0.0, 0.0], "more": 1.0},
        {"mean": 1.0, "norms": [0.0]},
        {"mean": 1.0, "norms": 0.0},
        {"mean": [1.0], "norms": [0.0, 0.0]},
        {"mean": None, "norms": [0.0, 0.0]},
    ],
)
def test_what_save_never_gave_is_refused_and_changes_nothing(saved: dict[str, Any]) -> None:
    state = State(mean=2.0, norms=[0.0, 0.0])
    state.on(CPU)
    with pytest.raises(ValueError, match="the saved"):
        state.load(saved)
    assert state.save() == {"mean": 2.0, "norms": [0.0, 0.0]}


def test_layers_are_unseen_at_first_and_known_by_name() -> None:
    layers = LayerState()
    values = layers.on(CPU, ["a", "b"])
    assert values.isnan().all().item() and values.dtype is torch.float64 and layers.save() == {}
    values[1] = 2.0
    assert layers.on(CPU, ["a", "b"]) is values and layers.save() == {"b": 2.0}


def test_a_layer_that_comes_later_leaves_the_others_as_they_are() -> None:
    layers = LayerState()
    layers.on(CPU, ["a", "b"]).copy_(torch.tensor([1.0, 2.0]))
    grown = layers.on(CPU, ["a", "b", "c"])
    assert grown[:2].tolist() == [1.0, 2.0] and grown[2].isnan().item()
    assert layers.on(META, ["a", "b", "c"]).device == META


def test_a_checkpoint_serves_another_order_and_keeps_layers_that_are_not_here_yet() -> None:
    layers = LayerState()
    layers.load(json.loads(json.dumps({"a": 1.0, "b": 2.0, "late": 3.0})))
    values = layers.on(CPU, ["b", "new", "a"])
    assert values[0].item() == 2.0 and values[1].isnan().item() and values[2].item() == 1.0
    values[2] = 5.0
    assert layers.save() == {"a": 5.0, "b": 2.0, "late": 3.0}
    assert layers.on(CPU, ["b", "new", "a", "late"])[3].item() == 3.0


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda layers: pickle.loads(pickle.dumps(layers))])
def test_a_copy_of_layers_goes_its_own_way(travel: Any) -> None:
    layers = LayerState()
    layers.on(CPU, ["a"]).fill_(1.0)
    twin = travel(layers)
    layers.on(CPU, ["a"]).fill_(2.0)
    assert not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(layers.__getstate__()))
    assert twin.save() == {"a": 1.0} and twin.on(CPU, ["z", "a"])[1].item() == 1.0
