"""Clipping by layer against torch's own function on every parameter alone, and against the clipped gradients."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from gradwatch.clipping import agc, normalize, per_group, per_layer
from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.per_layer import PerLayer, cosine_of, kept
from gradwatch.clipping.strategy import Decision, Gradients, Strategy
from gradwatch.clipping.threshold import Scheduled
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.client_hook.clipping.stepping import Named, clip, gradients_of

shapes = st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=6)
scales = st.sampled_from([1e-30, 1e-6, 0.03, 1.0, 1e6, 1e15])
powers = st.sampled_from([1.0, 1.5, 2.0, 3.0, math.inf])
planted = st.sampled_from([None, None, None, math.nan, math.inf, -math.inf, 1e30, 1e-40])
full = st.sampled_from([torch.float32, torch.float64])
half = st.sampled_from([torch.bfloat16, torch.float16])


def random_gradients(shapes: list[list[int]], seed: int, scale: float, dtype: torch.dtype) -> list[Tensor]:
    """Layers of very different sizes; every fifth is zero."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) * scale for shape in shapes]
    spread = [gradient * 10.0 ** (place % 3 - 1) for place, gradient in enumerate(made)]
    return [(gradient * ((seed + place) % 5 > 0)).to(dtype) for place, gradient in enumerate(spread)]


def plant(gradients: list[Tensor], seed: int, value: float | None) -> None:
    filled = [gradient for gradient in gradients if gradient.numel()]
    if value is not None and filled:
        filled[seed % len(filled)].view(-1)[0] = value


def with_gradients(gradients: list[Tensor]) -> list[Tensor]:
    """Parameters that hold copies of ``gradients``, for torch to clip."""
    parameters = [torch.zeros_like(gradient, requires_grad=True) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    return parameters


def gradients_in(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def same_bits(one: Tensor, other: Tensor) -> bool:
    same = torch.equal(one.nan_to_num(7e7), other.nan_to_num(7e7)) and torch.equal(one.isnan(), other.isnan())
    return one.dtype == other.dtype and bool(same)


def step(strategy: Strategy, gradients: Gradients) -> tuple[Measurement, Decision]:
    measurement = strategy.measure(gradients)
    decision = strategy.decide(measurement, gradients)
    strategy.apply(measurement, gradients, decision)
    return measurement, decision


def as_one(gradients: list[Tensor]) -> Tensor:
    return torch.cat([gradient.double().flatten() for gradient in gradients])


def check_record(decision: Decision, before: list[Tensor], after: list[Tensor], p: float, tolerance: float) -> None:
    """Coefficient and cosine against the gradients themselves, in float64; nothing where these are not finite."""
    old, new = as_one(before), as_one(after)
    largest = float(old.abs().max()) if old.numel() else 0.0
    if not math.isfinite(largest) or not 0 < float(new.norm(p)) < math.inf:
        return
    old, new = old / largest, new / largest
    assert isinstance(decision.coefficient, float) and isinstance(decision.cosine, float)
    assert decision.coefficient == pytest.approx(float(new.norm(p) / old.norm(p)), rel=tolerance)
    assert decision.cosine == pytest.approx(float(old @ new / old.norm() / new.norm()), rel=tolerance)


class NoCopiesToDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails on every copy from the host to another device, which can make the host wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            sources = [argument for argument in args if isinstance(argument, Tensor)]
            assert {source.device.type for source in sources} == {result.device.type}, f"{func} waits"
        return result


def check_no_waiting(strategy: Strategy) -> None:
    """Steps on a device of which no value can be read, the last ones with an absent gradient."""
    sizes = [(3, 4), (7,), (), (2, 3, 5)]
    layers = Named([f"layer{place}" for place in range(len(sizes))], [0, 1, 1, 0])

    def take(count: int) -> None:
        tensors = [torch.empty(size, device="cuda") for size in sizes[:count]]
        weights = [torch.empty(size, device="cuda") for size in sizes[:count]]
        places = None if count == len(sizes) else torch.empty(count, dtype=torch.long, device="cuda")
        _, decision = step(strategy, Gradients(tensors, weights, layers, places, 0))
        for told in (decision.clipped, decision.coefficient):
            assert isinstance(told, Tensor) and told.device.type == "cuda" and told.shape == ()
        assert decision.factors is None or decision.factors.shape == (count,)

    with FakeTensorMode(allow_non_fake_inputs=True):
        take(4)
        with NoCopiesToDevice():  # type: ignore[no-untyped-call]
            for count in (4, 3, 3, 4):
                take(count)


def check_same_on_a_device(make: Callable[[], Strategy]) -> None:
    """The branches that a CPU never takes give the same numbers, here with tensors that can be read."""
    nan, zero = torch.tensor([[math.nan, 1.0]]), torch.zeros(1, 2)
    for last in (torch.tensor([[3.0, 4.0]]), torch.tensor([[3e-9, 4e-9]]), nan, zero):
        tensors = [torch.tensor([[0.3, 0.4], [6.0, 8.0]]), torch.zeros(3), last]
        here = gradients_of([tensor.clone() for tensor in tensors])
        there = gradients_of([tensor.clone() for tensor in tensors])
        _, expected = step(make(), here)
        with pytest.MonkeyPatch.context() as patch:
            for module in (per_layer, per_group, agc, normalize):
                patch.setattr(module, "on_host", lambda tensor: False)
            _, decision = step(make(), there)
        assert all(map(same_bits, here.tensors, there.tensors))
        assert isinstance(decision.coefficient, Tensor) and isinstance(decision.clipped, Tensor)
        for name in ("coefficient", "clipped", "threshold", "cosine"):
            assert float(getattr(decision, name)) == pytest.approx(float(getattr(expected, name)), nan_ok=True), name
        if decision.factors is not None and expected.factors is not None:
            assert same_bits(decision.factors, expected.factors)


def check_schedules(make: Callable[[Scheduled], Strategy]) -> None:
    """A schedule survives a checkpoint, and a threshold that was set does, too."""
    scheduled = make(lambda at: 1.0 + at)
    assert clip(scheduled, [torch.tensor([9.0])], step=3)[1].threshold == 4.0
    saved = json.loads(json.dumps(scheduled.state_dict(), allow_nan=False))
    resumed = make(lambda at: 2.0 + at)
    resumed.load_state_dict(saved)
    assert clip(resumed, [torch.tensor([9.0])], step=3)[1].threshold == 5.0
    for value in (0.5, math.inf):
        scheduled.threshold = value
        assert clip(scheduled, [torch.tensor([9.0])], step=3)[1].threshold == scheduled.threshold == value
        resumed.load_state_dict(json.loads(json.dumps(scheduled.state_dict(), allow_nan=False)))
        assert resumed.threshold == value


def check_travels(strategy: Strategy) -> None:
    """A copy and a pickled one describe themselves alike and clip alike, after a step, too."""
    clip(strategy, [torch.tensor([3.0, 4.0]), torch.tensor([30.0])])
    for twin in (copy.deepcopy(strategy), pickle.loads(pickle.dumps(strategy))):
        assert twin.describe() == strategy.describe() == json.loads(json.dumps(strategy.describe(), allow_nan=False))
        ours, theirs = (
            [torch.tensor([3.0, 4.0]), torch.tensor([30.0])],
            [torch.tensor([3.0, 4.0]), torch.tensor([30.0])],
        )
        assert clip(strategy, ours)[1].coefficient == clip(twin, theirs)[1].coefficient
        assert all(map(torch.equal, ours, theirs))


@settings(deadline=None)
@given(shapes, st.integers(0, 2**31), scales, powers, st.floats(1e-3, 1e3), planted, full)
def test_bits_are_torchs(
    shapes: list[list[int]], seed: int, scale: float, p: float, max_norm: float, value: float | None, dtype: torch.dtype
) -> None:
    gradients = [gradient for gradient in random_gradients(shapes, seed, scale, dtype) if gradient.numel()]
    plant(gradients, seed, value)
    if not gradients:
        return
    raw = [gradient.clone() for gradient in gradients]
    expected = with_gradients(gradients)
    # Where the sum of all layers overflows, norms are measured anew in float64, unlike torch's.
    exact = bool(torch.isfinite(torch.nn.utils.get_total_norm(raw, p))) or not bool(as_one(raw).isfinite().all())
    norms = [float(torch.nn.utils.clip_grad_norm_([parameter], max_norm, p)) for parameter in expected]
    _, decision = clip(PerLayer(max_norm, p), gradients)
    if exact:
        assert all(map(same_bits, gradients, gradients_in(expected)))
        assert decision.clipped is any(norm > max_norm for norm in norms)
    check_record(decision, raw, gradients, p, 1e-5)


@settings(deadline=None, max_examples=50)
@given(shapes, st.integers(0, 2**31), st.sampled_from([1e-3, 1.0, 50.0]), st.floats(1e-2, 1e2), half)
def test_half_precision_is_clipped_by_float32_norms(
    shapes: list[list[int]], seed: int, scale: float, max_norm: float, dtype: torch.dtype
) -> None:
    gradients = random_gradients(shapes, seed, scale, dtype)
    raw = [gradient.clone() for gradient in gradients]
    expected = with_gradients([gradient.float() for gradient in gradients])
    norms = [float(torch.nn.utils.clip_grad_norm_([parameter], max_norm)) for parameter in expected]
    _, decision = clip(PerLayer(max_norm), gradients)
    assert decision.clipped is any(norm > max_norm for norm in norms)
    # The factor and the product are rounded to the gradients' precision, one step each.
    tolerance = 2.5 * torch.finfo(dtype).eps
    for ours, theirs in zip(gradients, gradients_in(expected), strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=tolerance, atol=float(torch.finfo(dtype).smallest_normal))
    check_record(decision, raw, gradients, 2.0, 4 * tolerance)


def test_a_sum_that_overflows_does_not_keep_layers_from_their_own_norm() -> None:
    gradients = [torch.full((4,), 1e20), torch.full((4,), 0.25), torch.full((4,), 2.0)]
    _, decision = clip(PerLayer(1.0), gradients)
    assert decision.clipped is True and decision.coefficient == pytest.approx(math.sqrt(2.25) / 2e20)
    for gradient, element in zip(gradients, (0.5, 0.25, 0.5), strict=True):
        torch.testing.assert_close(gradient, torch.full((4,), element))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_layer_leaves_the_others_to_their_own_norms(bad: float) -> None:
    gradients = [torch.tensor([bad, 1.0]), torch.tensor([3.0, 4.0]), torch.tensor([0.1, 0.0])]
    _, decision = clip(PerLayer(1.0), gradients)
    assert gradients[0].isnan().tolist() == [True, math.isnan(bad)]
    torch.testing.assert_close(gradients[1], torch.tensor([0.6, 0.8]))
    assert gradients[2].tolist() == torch.tensor([0.1, 0.0]).tolist()
    assert decision.clipped is True and math.isnan(float(decision.coefficient))


def test_nothing_is_multiplied_when_no_layer_is_above() -> None:
    # Their total norm is above the threshold, and does not count.
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([4.0, 4.0]), torch.zeros(3)]
    _, decision = clip(PerLayer(5.9), gradients)
    assert decision == Decision(1.0, False, 5.9) and [gradient._version for gradient in gradients] == [0, 0, 0]
    assert clip(PerLayer(1.0), [torch.zeros(3)])[1] == Decision(1.0, False, 1.0)
    assert clip(PerLayer(1.0), [])[1] == Decision(1.0, False, 1.0)


def test_a_norm_of_exactly_the_threshold_is_no_clip_event() -> None:
    _, decision = clip(PerLayer(5.0), [torch.tensor([3.0, 4.0])])
    assert decision.clipped is False and float(decision.coefficient) < 1


def test_sparse_and_mixed_gradients() -> None:
    sparse = torch.sparse_coo_tensor(torch.tensor([[1, 3]]), torch.tensor([3.0, 4.0]), (5,), check_invariants=True)
    half = torch.full((4,), 2.0, dtype=torch.bfloat16)
    _, decision = clip(PerLayer(1.0), [sparse, half, torch.tensor([0.5])])
    torch.testing.assert_close(sparse.to_dense(), torch.tensor([0.0, 0.6, 0.0, 0.8, 0.0]))
    torch.testing.assert_close(half, torch.full((4,), 0.5, dtype=torch.bfloat16))
    assert decision.coefficient == pytest.approx(math.sqrt(2.25 / 41.25))


def test_patterns_choose_layers_whichever_are_present() -> None:
    strategy = PerLayer(1.0, layers=["*", "!head.*"])
    few = Named(["body.weight", "head.weight"])
    kept_head = [torch.tensor([9.0]), torch.tensor([9.0])]
    _, decision = step(strategy, Gradients(kept_head, [], few, None, 0))
    torch.testing.assert_close(torch.cat(kept_head), torch.tensor([1.0, 9.0]))
    assert decision.clipped is True
    only_head = [torch.tensor([math.nan, 9.0])]
    _, decision = step(strategy, Gradients(only_head, [], few, torch.tensor([1]), 1))
    assert only_head[0].tolist()[1] == 9.0 and decision.clipped is False and decision.factors is None
    grown = Named([*few.names, "new.weight", "head.bias"])
    three = [torch.tensor([9.0]), torch.tensor([9.0]), torch.tensor([9.0])]
    step(strategy, Gradients(three, [], grown, torch.tensor([0, 2, 3]), 2))
    torch.testing.assert_close(torch.cat(three), torch.tensor([1.0, 1.0, 9.0]))


def test_patterns_that_choose_no_layer_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    strategy = PerLayer(1.0, layers="encoder.*")
    for count in (1, 1, 2):
        gradients = [torch.tensor([9.0]) for _ in range(count)]
        assert clip(strategy, gradients)[1] == Decision(1.0, False, 1.0) and gradients[0].item() == 9.0
    assert capsys.readouterr().err.count("chooses none of the layers, such as 'layer0'") == 1


@pytest.mark.parametrize("p", [2.0, 3.0])
def test_it_reads_no_value_from_a_device(p: float) -> None:
    check_no_waiting(PerLayer(1.0, p, layers="!layer1"))
    check_no_waiting(PerLayer(1.0, p))
    check_same_on_a_device(lambda: PerLayer(1.0, p))
    check_same_on_a_device(lambda: PerLayer(1.0, p, layers="!layer0"))


def test_the_fall_back_is_torchs_function_on_each_parameter() -> None:
    gradients = random_gradients([[3, 4], [5], []], 1, 10.0, torch.float32)
    ours, theirs = with_gradients(gradients), with_gradients(gradients)
    total = PerLayer(1.0).fall_back([*ours, torch.zeros(1)])
    for parameter in theirs:
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
    assert all(map(torch.equal, gradients_in(ours), gradients_in(theirs)))
    assert torch.equal(total, torch.nn.utils.get_total_norm(gradients))


def test_a_schedule_and_a_set_threshold_take_effect() -> None:
    check_schedules(PerLayer)


def test_it_travels_and_describes_itself() -> None:
    strategy = PerLayer(math.inf, math.inf, layers=["*", "!layer0"])
    check_travels(strategy)
    check_travels(PerLayer(1.0, layers="!layer0"))
    described = {"strategy": "PerLayer", "max_norm": "inf", "norm_type": "inf", "layers": ["*", "!layer0"]}
    assert strategy.describe() == described


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"max_norm": 0}, "clip=None"),
        ({"max_norm": 1.0, "norm_type": 0.5}, "2.0 is"),
        ({"max_norm": 1.0, "layers": []}, "encoder"),
        ({"max_norm": 1.0, "layers": ["!"]}, "encoder"),
        ({"max_norm": 1.0, "layers": [3]}, "encoder"),
    ],
)
def test_wrong_arguments_say_what_to_write(arguments: dict[str, object], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        PerLayer(**arguments)  # type: ignore[arg-type]


def test_what_is_kept_of_nothing_is_all() -> None:
    nothing, half = torch.zeros(3), torch.full((3,), 0.5)
    assert kept(nothing, half, 2.0).item() == cosine_of(nothing, half).item() == 1.0
    huge = torch.tensor([1e200, 1e200], dtype=torch.float64)
    assert kept(huge, torch.tensor([1.0, 0.0]), 2.0).item() == pytest.approx(math.sqrt(0.5))
    assert cosine_of(huge, torch.tensor([1.0, 0.0])).item() == pytest.approx(math.sqrt(0.5))
