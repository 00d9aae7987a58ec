"""The global norm against torch's own function: the same bits, whatever the gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.strategy import Decision
from gradwatch.drop_in import TorchGlobalNorm
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.client_hook.clipping.stepping import clip

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


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal but for which NaN: a NaN's payload depends on the order of instructions, in torch too."""
    return (
        one.dtype == other.dtype
        and bool(torch.equal(one.nan_to_num(7e7), other.nan_to_num(7e7)))
        and bool(torch.equal(one.isnan(), other.isnan()))
    )


def assert_bits(strategy: GlobalNorm, gradients: list[Tensor], max_norm: float, p: float) -> None:
    expected = holders(gradients)
    total = torch.nn.utils.clip_grad_norm_(expected, max_norm, p)
    measurement, _ = clip(strategy, gradients)
    assert same_bits(measurement.total, total)
    for gradient, parameter in zip(gradients, expected, strict=True):
        assert parameter.grad is not None and same_bits(gradient, parameter.grad)


arguments = (shapes, st.integers(0, 2**31), st.floats(1e-6, 1e6), powers, st.floats(1e-3, 1e3), planted)


@given(*arguments, st.sampled_from([torch.float32, torch.float64]))
def test_bits_are_torchs(
    shapes: list[list[int]], seed: int, scale: float, p: float, max_norm: float, plant: float | None, dtype: torch.dtype
) -> None:
    filled = [gradient for gradient in random_gradients(shapes, seed, scale, dtype) if gradient.numel()]
    if filled and plant != 1e30:  # whose powers overflow: torch's norm is infinite there, ours is not
        if plant is not None:
            filled[seed % len(filled)].view(-1)[0] = plant
        assert_bits(GlobalNorm(max_norm, p), filled, max_norm, p)


@given(*arguments, dtypes)
def test_the_drop_ins_bits_are_torchs_in_half_precision_and_overflow_too(
    shapes: list[list[int]], seed: int, scale: float, p: float, max_norm: float, plant: float | None, dtype: torch.dtype
) -> None:
    filled = [gradient for gradient in random_gradients(shapes, seed, scale, dtype) if gradient.numel()]
    if filled:
        if plant is not None:
            filled[seed % len(filled)].view(-1)[0] = plant
        assert_bits(TorchGlobalNorm(max_norm, p), filled, max_norm, p)


@given(st.lists(dtypes, min_size=2, max_size=6), st.integers(0, 2**31), st.floats(1e-2, 1e2))
def test_mixed_dtypes_are_added_up_in_torchs_order(kinds: list[torch.dtype], seed: int, max_norm: float) -> None:
    gradients = [random_gradients([[7, 3]], seed + place, 1.0, dtype)[0] for place, dtype in enumerate(kinds)]
    assert_bits(TorchGlobalNorm(max_norm), gradients, max_norm, 2.0)


@given(st.sampled_from([torch.bfloat16, torch.float16]), powers, st.integers(0, 2**31), st.floats(1e-2, 1e2))
def test_half_precision_is_measured_in_float32(dtype: torch.dtype, p: float, seed: int, max_norm: float) -> None:
    gradients = random_gradients([[40, 30], [11], [2, 3, 4]], seed, 3.0, dtype)
    flat = np.concatenate([gradient.double().numpy().ravel() for gradient in gradients])
    norm = float(np.linalg.norm(flat, p))
    before = [gradient.clone() for gradient in gradients]
    near = 1e-6 if p in (1.0, 2.0, math.inf) else 1e-5  # other powers go through powf
    measurement, decision = clip(GlobalNorm(max_norm, p), gradients)
    assert measurement.total.dtype is torch.float32 and measurement.total.item() == pytest.approx(norm, rel=near)
    coefficient = torch.tensor(decision.coefficient)
    assert float(decision.coefficient) == pytest.approx(min(1.0, max_norm / (norm + 1e-6)), rel=near)
    for gradient, was in zip(gradients, before, strict=True):
        assert torch.equal(gradient, (was.float() * coefficient).to(dtype))


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
    measurement, _ = clip(GlobalNorm(3.5, math.inf), gradients)
    assert measurement.total.item() == 7.0
    assert torch.allclose(gradients[1], torch.tensor([-3.5, 1.0]))


def test_sparse_gradients_are_measured_and_clipped() -> None:
    gradient = torch.sparse_coo_tensor(
        torch.tensor([[1, 1, 3]]), torch.tensor([3.0, 0.0, 4.0]), (5,), check_invariants=True
    )
    measurement, decision = clip(GlobalNorm(1.0), [gradient])
    assert measurement.total.item() == 5.0 and decision.clipped is True
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


def test_a_schedule_sets_the_threshold_step_by_step() -> None:
    strategy = GlobalNorm(lambda step: 5.0 / (step + 1))
    thresholds = [clip(strategy, [torch.tensor([3.0, 4.0])], step)[1].threshold for step in range(3)]
    assert thresholds == [5.0, 2.5, 5.0 / 3]


def test_state_travels() -> None:
    old, new = GlobalNorm(1.0), GlobalNorm(2.0)
    old.threshold = 0.25
    new.load_state_dict(old.state_dict())
    assert new.threshold == 0.25
    assert new.describe() == {"strategy": "GlobalNorm", "max_norm": 0.25, "norm_type": 2.0}
