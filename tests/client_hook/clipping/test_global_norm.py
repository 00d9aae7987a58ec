"""The global norm against torch's own function: the same bits, whatever the gradients."""

from __future__ import annotations

import math

import pytest
import torch
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.strategy import Decision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

shapes = st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=6)
powers = st.sampled_from([1.0, 1.5, 2.0, 3.0, math.inf])
planted = st.sampled_from([None, None, None, math.nan, math.inf, -math.inf, 1e30, 1e-40])
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])


def random_gradients(shapes: list[list[int]], seed: int, scale: float, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(shape, generator=generator) * scale).to(dtype) for shape in shapes]


def holders(gradients: list[Tensor]) -> list[Tensor]:
    parameters = [torch.zeros_like(gradient, requires_grad=True) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    return parameters


def clip(strategy: GlobalNorm, gradients: list[Tensor]) -> tuple[Tensor, Decision]:
    uniform = len({gradient.dtype for gradient in gradients}) == 1
    measurement = strategy.measure(gradients, uniform)
    decision = strategy.decide(measurement, gradients)
    strategy.apply(measurement, gradients, decision)
    return measurement.total, decision


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal but for which NaN: a NaN's payload depends on the order of instructions, in torch too."""
    return (
        one.dtype == other.dtype
        and bool(torch.equal(one.nan_to_num(7e7), other.nan_to_num(7e7)))
        and bool(torch.equal(one.isnan(), other.isnan()))
    )


@given(shapes, st.integers(0, 2**31), st.floats(1e-6, 1e6), powers, st.floats(1e-3, 1e3), planted, dtypes)
def test_bits_are_torchs(
    shapes: list[list[int]], seed: int, scale: float, p: float, max_norm: float, plant: float | None, dtype: torch.dtype
) -> None:
    gradients = random_gradients(shapes, seed, scale, dtype)
    filled = [gradient for gradient in gradients if gradient.numel()]
    if not filled:
        return
    if plant is not None:
        filled[seed % len(filled)].view(-1)[0] = plant
    expected = holders(filled)
    total = torch.nn.utils.clip_grad_norm_(expected, max_norm, p)
    ours, _ = clip(GlobalNorm(max_norm, p), filled)
    assert same_bits(ours, total)
    for gradient, parameter in zip(filled, expected, strict=True):
        assert parameter.grad is not None and same_bits(gradient, parameter.grad)


@given(st.lists(dtypes, min_size=2, max_size=6), st.integers(0, 2**31), st.floats(1e-2, 1e2))
def test_mixed_dtypes_are_added_up_in_torchs_order(kinds: list[torch.dtype], seed: int, max_norm: float) -> None:
    gradients = [random_gradients([[7, 3]], seed + place, 1.0, dtype)[0] for place, dtype in enumerate(kinds)]
    expected = holders(gradients)
    total = torch.nn.utils.clip_grad_norm_(expected, max_norm)
    ours, _ = clip(GlobalNorm(max_norm), gradients)
    assert same_bits(ours, total)
    assert all(p.grad is not None and same_bits(g, p.grad) for g, p in zip(gradients, expected, strict=True))


def test_a_norm_of_exactly_the_threshold_is_no_clip_event_and_still_torchs_bits() -> None:
    gradients = [torch.tensor([3.0, 4.0])]
    expected = holders(gradients)
    torch.nn.utils.clip_grad_norm_(expected, 5.0)
    _, decision = clip(GlobalNorm(5.0), gradients)
    assert decision.clipped is False and decision.coefficient < 1
    assert expected[0].grad is not None and torch.equal(gradients[0], expected[0].grad)


def test_nothing_is_multiplied_below_the_threshold() -> None:
    gradients = [torch.tensor([3.0, 4.0])]
    version = gradients[0]._version
    _, decision = clip(GlobalNorm(6.0), gradients)
    assert decision == Decision(1.0, False, 6.0) and gradients[0]._version == version


def test_empty_gradients_do_not_break_the_infinity_norm() -> None:
    gradients = [torch.zeros(0), torch.tensor([-7.0, 2.0])]
    total, _ = clip(GlobalNorm(3.5, math.inf), gradients)
    assert total.item() == 7.0
    assert torch.allclose(gradients[1], torch.tensor([-3.5, 1.0]))


def test_sparse_gradients_are_measured_and_clipped() -> None:
    gradient = torch.sparse_coo_tensor(
        torch.tensor([[1, 1, 3]]), torch.tensor([3.0, 0.0, 4.0]), (5,), check_invariants=True
    )
    total, decision = clip(GlobalNorm(1.0), [gradient])
    assert total.item() == 5.0 and decision.clipped is True
    assert torch.allclose(gradient.to_dense(), torch.tensor([0.0, 0.6, 0.0, 0.8, 0.0]), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ((0,), "clip=None"),
        ((-1,), "clip=None"),
        ((math.nan,), "clip=None"),
        ((1, 0.5), "2.0 is"),
        ((1, math.nan), "2.0"),
    ],
)
def test_wrong_arguments_say_what_to_write(arguments: tuple[float, ...], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        GlobalNorm(*arguments)


def test_state_travels() -> None:
    old, new = GlobalNorm(1.0), GlobalNorm(2.0)
    old.threshold = 0.25
    new.load_state_dict(old.state_dict())
    assert new.threshold == 0.25
    assert new.describe() == {"strategy": "GlobalNorm", "max_norm": 0.25, "norm_type": 2.0}
