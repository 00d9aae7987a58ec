"""Whose turn it is, whatever layers a clip has."""

from __future__ import annotations

import torch
from gradwatch.clipping.strategy import Gradients
from gradwatch.measure.budget import Price
from gradwatch.measure.rotation import PER_LAYER, PER_SAMPLE, Rotation, Turns
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.client_hook.measure.training import NamedLayers, gathered


def turns_of(most_elements: int = 1 << 62) -> Turns:
    return Turns("weight_norm", lambda weight, gradient: weight.numel(), Price(1.0), 16, most_elements)


def layers(*sizes: int) -> list[Tensor]:
    parameters = [torch.zeros(size, requires_grad=True) for size in sizes]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    return parameters


def rows_of(rotation: Rotation, turns: Turns, gradients: Gradients, units: float, most_rows: int = 99) -> list[int]:
    batch = rotation.batch(turns, gradients, units, most_rows)
    if batch is None:
        return []
    turns.took(batch.rows)
    return batch.rows


def test_a_sample_takes_what_is_paid_for_and_one_at_least() -> None:
    rotation, turns, gradients = Rotation(range(5), None), turns_of(), gathered(layers(10, 10, 10, 10, 10), 0)
    price_of_two = PER_SAMPLE + 2 * (PER_LAYER + 10)
    assert [rows_of(rotation, turns, gradients, price_of_two) for _ in range(3)] == [[0, 1], [2, 3], [4, 0]]
    assert rows_of(rotation, turns, gradients, -1.0) == [1]
    assert rows_of(rotation, turns, gradients, 1e9, most_rows=3) == [2, 3, 4]
    batch = rotation.batch(turns, gradients, price_of_two, 99)
    assert batch is not None and batch.units == price_of_two and batch.indices == [0, 1]


def test_elements_are_bounded_but_for_a_single_layer() -> None:
    rotation, turns, gradients = Rotation(range(4), None), turns_of(100), gathered(layers(60, 40, 500, 7), 0)
    assert [rows_of(rotation, turns, gradients, 1e9) for _ in range(3)] == [[0, 1], [2], [3, 0]]


def test_rows_are_the_recorded_layers_that_have_a_gradient() -> None:
    parameters = layers(1, 1, 1, 1, 1)
    parameters[1].grad = None
    gradients = gathered(parameters, 0)
    rotation = Rotation([1, 2, 4], None)
    assert rotation.indices(gradients) == [-1, 1, 3]
    assert rows_of(rotation, turns_of(), gradients, 1e9) == [1, 2]
    assert rotation.indices(gathered(layers(1, 1, 1, 1, 1), 1)) == [1, 2, 4]


def test_layers_that_cannot_be_measured_are_passed_over() -> None:
    rotation, turns, gradients = Rotation(range(3), None), turns_of(), gathered(layers(0, 3, 0), 0)
    assert rows_of(rotation, turns, gradients, 1e9) == [1]
    assert rotation.batch(turns, gathered(layers(0, 0, 0), 1), 1e9, 99) is None


def test_two_optimizers_that_take_turns_keep_each_others_turns() -> None:
    rotation, turns, parameters = Rotation(range(6), None), turns_of(), layers(*[1] * 6)
    seen = []
    for step in range(6):
        half = [0, 1, 2] if step % 2 == 0 else [3, 4, 5]
        seen += rows_of(rotation, turns, gathered(parameters, step, half), 0.0)
    assert seen == [0, 3, 1, 4, 2, 5]


def test_on_another_device_the_place_of_parameters_tells_what_the_host_cannot_read() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        parameters = [torch.zeros(2, device="cuda", requires_grad=True) for _ in range(4)]
        for parameter in parameters[1:]:
            parameter.grad = torch.zeros_like(parameter)
        place = {id(parameter): at for at, parameter in enumerate(parameters)}
        tensors = [parameter.grad for parameter in parameters[1:] if parameter.grad is not None]
        index = torch.empty(3, dtype=torch.int64, device="cuda")
        gradients = Gradients(tensors, parameters[1:], NamedLayers(4), index, 0)
        assert Rotation(range(4), place).indices(gradients) == [-1, 0, 1, 2]
        assert Rotation(range(4), None).indices(gradients) == [-1] * 4


def test_a_sample_stays_on_one_device() -> None:
    with FakeTensorMode():
        parameters = [torch.zeros(2, device=device, requires_grad=True) for device in ("cpu", "cuda", "cpu", "cuda")]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        rotation, turns, gradients = Rotation(range(4), None), turns_of(), gathered(parameters, 0)
        assert [rows_of(rotation, turns, gradients, 1e9) for _ in range(3)] == [[0, 2], [1, 3], [0, 2]]
