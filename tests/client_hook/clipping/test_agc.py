"""Adaptive clipping unit by unit against timm's function, and against a loop over units in float64."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from gradwatch.clipping.agc import AGC, multiply_units
from gradwatch.clipping.strategy import Decision, Gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.client_hook.clipping.stepping import Named, gradients_of
from tests.client_hook.clipping.test_per_layer import (
    as_one,
    check_no_waiting,
    check_record,
    check_same_on_a_device,
    check_schedules,
    check_travels,
    full,
    gradients_in,
    half,
    plant,
    planted,
    random_gradients,
    same_bits,
    scales,
    step,
    with_gradients,
)

# Scalars, vectors, linear layers and convolutions over one, two and three dimensions.
shapes = st.lists(st.lists(st.integers(1, 4), max_size=5), min_size=1, max_size=5)
factors = st.sampled_from([1e-4, 0.01, 0.3, 2.0])


def timm_agc() -> Callable[..., None]:
    """timm's function, from its one file: the package itself imports torchvision, which the tests do not need."""
    found = importlib.util.find_spec("timm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("timm is not installed: pip install --no-deps timm")
    path = Path(found.submodule_search_locations[0]) / "utils" / "agc.py"
    spec = importlib.util.spec_from_file_location("timm_agc", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., None] = module.adaptive_clip_grad
    return function


def random_weights(shapes: list[list[int]], seed: int, dtype: torch.dtype) -> list[Tensor]:
    """Every third is zero, as a layer that is initialised so; the others have a row of zeros."""
    weights = random_gradients(shapes, seed + 1, 1.0, dtype)
    for place, weight in enumerate(weights):
        if weight.ndim and weight.shape[0]:
            weight[0] = 0
        weights[place] = weight * (place % 3 > 0)
    return weights


def gradients_for(weights: list[Tensor], tensors: list[Tensor]) -> Gradients:
    gradients = gradients_of(tensors)
    gradients.parameters = weights
    return gradients


def by_loop(weights: list[Tensor], raw: list[Tensor], clip_factor: float, eps: float) -> tuple[list[Tensor], bool]:
    """The definition, one unit after the other, in float64, and whether some unit is above its limit."""
    clipped, event = [], False
    for weight, gradient in zip(weights, raw, strict=True):
        new = gradient.double().clone()
        units = zip(weight.double(), new, strict=True) if weight.ndim > 1 else [(weight.double(), new)]
        for unit, part in units:
            limit = clip_factor * max(math.sqrt(float((unit * unit).sum())), eps)
            largest = float(part.abs().max())
            norm = largest * math.sqrt(float(((part / largest) ** 2).sum())) if largest else 0.0
            if norm > limit:
                event = True
                part.mul_(limit / max(norm, 1e-6))
        clipped.append(new)
    return clipped, event


@settings(deadline=None)
@given(shapes, st.integers(0, 2**31), scales, factors, st.sampled_from([1e-6, 1e-3, 0.5]), planted, full)
def test_bits_are_timms(
    shapes: list[list[int]],
    seed: int,
    scale: float,
    clip_factor: float,
    eps: float,
    value: float | None,
    dtype: torch.dtype,
) -> None:
    weights, gradients = random_weights(shapes, seed, dtype), random_gradients(shapes, seed, scale, dtype)
    plant(gradients, seed, value)
    raw = [gradient.clone() for gradient in gradients]
    expected = [weight.clone().requires_grad_() for weight in weights]
    for parameter, gradient in zip(expected, gradients, strict=True):
        parameter.grad = gradient.clone()
    timm_agc()(expected, clip_factor, eps)
    _, decision = step(AGC(clip_factor, eps), gradients_for(weights, gradients))
    # Where the sum of all layers overflows, norms are taken in float64, unlike timm's.
    finite = bool(as_one(raw).isfinite().all())
    if bool(torch.isfinite(torch.nn.utils.get_total_norm(raw))) or not finite:
        assert all(map(same_bits, gradients, gradients_in(expected)))
    check_record(decision, raw, gradients, 2.0, 1e-5)


@settings(deadline=None)
@given(shapes, st.integers(0, 2**31), scales, factors, st.sampled_from([None, None, 1e30, 1e-40]), full | half)
def test_results_are_those_of_the_definition(
    shapes: list[list[int]], seed: int, scale: float, clip_factor: float, value: float | None, dtype: torch.dtype
) -> None:
    weights, gradients = random_weights(shapes, seed, dtype), random_gradients(shapes, seed, scale, dtype)
    plant(gradients, seed, value)
    raw = [gradient.clone() for gradient in gradients]
    if not bool(as_one(raw).isfinite().all()):  # 1e30 in float16
        return
    expected, event = by_loop(weights, raw, clip_factor, 1e-3)
    _, decision = step(AGC(clip_factor), gradients_for(weights, gradients))
    tiny, tolerance = float(torch.finfo(dtype).smallest_normal), 1e-6 + torch.finfo(dtype).eps
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tiny)
    assert decision.clipped is event
    if dtype in (torch.float32, torch.float64):
        check_record(decision, raw, gradients, 2.0, 1e-5)
        for at, (before, after) in enumerate(zip(raw, gradients, strict=True)):
            length = float(before.double().norm())
            left = 1.0 if decision.factors is None else float(decision.factors[at])
            if float(after.double().norm()) > 1e-30:
                assert left == pytest.approx(float(after.double().norm()) / length, rel=1e-5)


def test_only_layers_with_a_clipped_unit_are_multiplied() -> None:
    weights = [torch.ones(2, 4), torch.ones(3, 4), torch.zeros(0, 3), torch.ones(2)]
    tensors = [torch.full((2, 4), 0.01), torch.full((3, 4), 0.01), torch.zeros(0, 3), torch.zeros(2)]
    tensors[1][2] = 1.0
    versions = [tensor._version for tensor in tensors]
    _, decision = step(AGC(0.1), gradients_for(weights, tensors))
    assert [tensor._version - version for tensor, version in zip(tensors, versions, strict=True)] == [0, 1, 0, 0]
    torch.testing.assert_close(tensors[1][2], torch.full((4,), 0.1))
    assert torch.equal(tensors[1][:2], torch.full((2, 4), 0.01))
    assert decision.factors is not None and decision.factors[[0, 2, 3]].tolist() == [1.0, 1.0, 1.0]
    _, decision = step(AGC(0.1), gradients_for(weights, tensors))
    assert decision.clipped is False


def test_nothing_is_multiplied_when_no_unit_is_above() -> None:
    weights, tensors = [torch.ones(2, 4), torch.ones(4)], [torch.full((2, 4), 0.0099), torch.zeros(4)]
    assert step(AGC(), gradients_for(weights, tensors))[1] == Decision(1.0, False, 0.01)
    assert [tensor._version for tensor in tensors] == [0, 0]
    assert step(AGC(), gradients_for([], []))[1] == Decision(1.0, False, 0.01)


def test_a_norm_of_exactly_the_limit_is_no_clip_event() -> None:
    weights, tensors = [torch.tensor([[3.0, 4.0]])], [torch.tensor([[1.5, 2.0]])]
    assert step(AGC(0.5), gradients_for(weights, tensors))[1] == Decision(1.0, False, 0.5)


def test_weights_of_zero_can_move() -> None:
    tensors = [torch.tensor([[3.0, 4.0]])]
    step(AGC(0.01, eps=1e-3), gradients_for([torch.zeros(1, 2)], tensors))
    torch.testing.assert_close(tensors[0], torch.tensor([[6e-6, 8e-6]]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_unit_leaves_the_others_to_their_own_limits(bad: float) -> None:
    weights, tensors = [torch.ones(3, 4)], [torch.ones(3, 4)]
    tensors[0][1, 0] = bad
    _, decision = step(AGC(0.1), gradients_for(weights, tensors))
    torch.testing.assert_close(tensors[0][[0, 2]], torch.full((2, 4), 0.1))
    assert tensors[0][1].isnan().tolist() == [True, *[math.isnan(bad)] * 3]
    assert decision.clipped is True and math.isnan(float(decision.coefficient))


def test_a_sum_that_overflows_does_not_keep_units_from_their_limits() -> None:
    weights, tensors = [torch.ones(2, 4)], [torch.full((2, 4), 1e25)]
    _, decision = step(AGC(0.1), gradients_for(weights, tensors))
    torch.testing.assert_close(tensors[0], torch.full((2, 4), 0.1))
    assert decision.clipped is True and decision.coefficient == pytest.approx(1e-26)


def test_patterns_leave_layers_out_whichever_are_present() -> None:
    strategy = AGC(0.1, layers="!head.*")
    layers = Named(["head.weight", "body.weight", "body.bias"])
    tensors = [torch.tensor([[math.nan, 1.0], [5.0, 5.0]]), torch.ones(2, 2), torch.ones(2)]
    weights = [torch.ones(2, 2), torch.ones(2, 2), torch.ones(2)]
    _, decision = step(strategy, Gradients(tensors, weights, layers, None, 0))
    assert tensors[0].nan_to_num(7.0).tolist() == [[7.0, 1.0], [5.0, 5.0]] and tensors[0]._version == 0
    torch.testing.assert_close(tensors[1], torch.full((2, 2), 0.1))
    head_and_bias = [torch.full((2, 2), 5.0), torch.ones(2)]
    places = torch.tensor([0, 2])
    _, decision = step(strategy, Gradients(head_and_bias, [weights[0], weights[2]], layers, places, 1))
    assert head_and_bias[0]._version == 0 and decision.clipped is True
    torch.testing.assert_close(head_and_bias[1], torch.full((2,), 0.1))
    _, decision = step(strategy, Gradients([torch.full((2, 2), 5.0)], [weights[0]], layers, torch.tensor([0]), 2))
    assert decision == Decision(1.0, False, 0.1)


def test_a_step_that_was_decided_and_left_out_leaves_nothing_behind() -> None:
    strategy, weights = AGC(0.1), [torch.ones(2, 2)]
    skipped = gradients_for(weights, [torch.ones(2, 2)])
    assert strategy.decide(strategy.measure(skipped), skipped).clipped is True
    tensors = [torch.full((2, 2), 0.01)]
    assert step(strategy, gradients_for(weights, tensors))[1].clipped is False and tensors[0]._version == 0


def test_memory_format_and_mixed_dtypes_do_not_matter() -> None:
    weight, gradient = torch.randn(8, 3, 5, 5), torch.randn(8, 3, 5, 5)
    bias = torch.randn(8, dtype=torch.bfloat16)
    expected, _ = by_loop([weight, bias], [gradient, bias], 0.1, 1e-3)
    tensors = [gradient.to(memory_format=torch.channels_last), bias.clone()]
    step(AGC(0.1), gradients_for([weight.to(memory_format=torch.channels_last), bias], tensors))
    torch.testing.assert_close(tensors[0].double(), expected[0], rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(tensors[1].double(), expected[1], rtol=1e-2, atol=0)
    assert tensors[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("shape", "dtype"), [((5,), torch.float32), ((5, 3), torch.float32), ((5, 3), torch.bfloat16)])
def test_sparse_gradients_are_clipped_as_dense_ones(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = torch.randn(4, *shape[1:]).to(dtype)
    rows = torch.tensor([[3, 1, 3, 0]])  # one of them twice
    sparse = torch.sparse_coo_tensor(rows, values, shape, check_invariants=True).coalesce()
    weight = torch.randn(shape).to(dtype)
    dense = [sparse.to_dense(), torch.ones(2, dtype=dtype)]
    _, expected = step(AGC(0.1), gradients_for([weight, torch.ones(2, dtype=dtype)], dense))
    ours = [sparse, torch.ones(2, dtype=dtype)]
    _, decision = step(AGC(0.1), gradients_for([weight, torch.ones(2, dtype=dtype)], ours))
    torch.testing.assert_close(ours[0].to_dense(), dense[0])
    assert decision.coefficient == pytest.approx(float(expected.coefficient), rel=1e-5)


def test_complex_gradients_are_clipped_by_their_magnitude() -> None:
    tensors = [torch.tensor([[3j, 4.0]]), torch.tensor([3j])]
    _, decision = step(AGC(0.1), gradients_for([torch.tensor([[0.6, 0.8j]]), torch.tensor([1j])], tensors))
    torch.testing.assert_close(tensors[0], torch.tensor([[0.06j, 0.08]]))
    torch.testing.assert_close(tensors[1], torch.tensor([0.1j]))
    assert decision.clipped is True


def mesh_of(ranks: int, rank: int) -> Any:
    """A mesh as rank ``rank`` of ``ranks`` sees it, whose collectives do nothing."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    return init_device_mesh("cpu", (ranks,))


@pytest.fixture(autouse=True)
def end_process_group() -> Iterator[None]:
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def test_a_rank_multiplies_its_own_rows() -> None:
    from torch.distributed.tensor import DTensor, Shard

    mesh = mesh_of(2, rank=1)
    rows = torch.ones(2, 3)  # the last two of five
    gradient = DTensor.from_local(rows, mesh, [Shard(0)], run_check=False, shape=torch.Size((5, 3)), stride=(3, 1))
    multiply_units(gradient, torch.arange(5.0))
    assert rows.tolist() == [[3.0] * 3, [4.0] * 3]


@pytest.mark.parametrize("dim", [0, 1])
def test_sharded_gradients_are_clipped_as_whole_ones(dim: int) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = mesh_of(1, rank=0)
    shapes = [[4, 3], [4, 3, 2], [4], [3, 4]]
    weights, whole = random_weights(shapes, 3, torch.float32), random_gradients(shapes, 3, 1.0, torch.float32)
    placements = [[Shard(dim if len(shape) > 1 else 0)] for shape in shapes]

    def distribute(tensors: list[Tensor]) -> list[Tensor]:
        pairs = zip(tensors, placements, strict=True)
        return [distribute_tensor(tensor.clone(), mesh, placement) for tensor, placement in pairs]

    sharded = gradients_for(distribute(weights), distribute(whole))
    sharded.uniform = False
    _, decision = step(AGC(0.1), sharded)
    _, expected = step(AGC(0.1), gradients_for(weights, whole))
    for ours, theirs in zip(sharded.tensors, whole, strict=True):
        torch.testing.assert_close(ours.full_tensor(), theirs)  # type: ignore[attr-defined]
    assert decision.clipped is expected.clipped is True
    assert decision.coefficient == pytest.approx(float(expected.coefficient), rel=1e-6)


def test_it_reads_no_value_from_a_device() -> None:
    check_no_waiting(AGC())
    check_no_waiting(AGC(lambda at: 0.01 + at, layers="!layer1"))
    check_same_on_a_device(lambda: AGC(0.5))
    check_same_on_a_device(lambda: AGC(0.5, layers="!layer0"))


def test_the_fall_back_takes_every_layer_for_one_unit() -> None:
    gradients = [torch.full((2, 2), 3.0), torch.full((1,), 3.0), torch.full((2,), 1e-3)]
    parameters = with_gradients(gradients)
    with torch.no_grad():
        parameters[0].fill_(1.0)
    total = AGC(0.1).fall_back([*parameters, torch.ones(1)])
    assert torch.equal(total, torch.nn.utils.get_total_norm(gradients))
    lengths = [float(gradient.norm()) for gradient in gradients_in(parameters)]
    assert lengths == pytest.approx([0.2, 1e-4, 1e-4], rel=0.02)


def test_a_schedule_and_a_set_factor_take_effect() -> None:
    strategy = AGC(lambda at: 0.1 * (1 + at))
    tensors = [torch.tensor([8.0])]
    gradients = gradients_for([torch.tensor([1.0])], tensors)
    gradients.step = 3
    assert step(strategy, gradients)[1].threshold == 0.4 and tensors[0].item() == pytest.approx(0.4)
    strategy.threshold = 0.2
    assert step(strategy, gradients)[1].threshold == strategy.threshold == 0.2
    check_schedules(AGC)


def test_it_travels_and_describes_itself() -> None:
    strategy = AGC(0.02, eps=1e-2, layers=["!head.*", "!*.bias"])
    check_travels(strategy)
    layers = ["!head.*", "!*.bias"]
    assert strategy.describe() == {"strategy": "AGC", "clip_factor": 0.02, "eps": 0.01, "layers": layers}


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"clip_factor": 0}, "clip_factor must be above 0.*clip=None"),
        ({"eps": 0}, "AGC\\(0.01, eps=1e-3\\)"),
        ({"eps": math.inf}, "AGC\\(0.01, eps=1e-3\\)"),
        ({"layers": []}, "encoder"),
    ],
)
def test_wrong_arguments_say_what_to_write(arguments: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        AGC(**arguments)
