"""Clipping by group against one call of torch's own function for each group."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradwatch.clipping.per_group import PerGroup
from gradwatch.clipping.strategy import Decision, Gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.client_hook.clipping.stepping import Named, clip
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
    powers,
    random_gradients,
    same_bits,
    scales,
    step,
    with_gradients,
)

shapes = st.lists(st.lists(st.integers(1, 5), max_size=3), min_size=1, max_size=9)
limits = st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3)


def named(groups: list[int]) -> Named:
    return Named([f"layer{place}" for place in range(len(groups))], groups)


def clip_groups(gradients: list[Tensor], groups: list[int], limits: dict[int, float], p: float) -> list[float]:
    """torch's function on each group of ``gradients``, in place; the groups' norms over their thresholds."""
    over = []
    for group, limit in limits.items():
        members = [gradient for gradient, number in zip(gradients, groups, strict=True) if number == group]
        parameters = with_gradients(members)
        over.append(float(torch.nn.utils.clip_grad_norm_(parameters, limit, p)) / limit)
        for gradient, clipped in zip(members, gradients_in(parameters), strict=True):
            gradient.copy_(clipped)
    return over


@settings(deadline=None)
@given(shapes, st.integers(0, 2**31), scales, powers, limits, planted, full, st.randoms(use_true_random=False))
def test_results_are_torchs_for_every_group(
    shapes: list[list[int]],
    seed: int,
    scale: float,
    p: float,
    limits: list[float],
    value: float | None,
    dtype: torch.dtype,
    random: Any,
) -> None:
    gradients = random_gradients(shapes, seed, scale, dtype)
    plant(gradients, seed, value)
    raw = [gradient.clone() for gradient in gradients]
    every = [random.randrange(3) for _ in range(len(shapes) + 2)]
    places = sorted(random.sample(range(len(every)), len(shapes)))
    groups = [every[place] for place in places]
    expected = [gradient.clone() for gradient in gradients]
    over = clip_groups(expected, groups, dict(enumerate(limits)), p)
    index = None if random.random() < 0.3 and places == list(range(len(places))) else torch.tensor(places)
    layers = named(groups if index is None else every)
    _, decision = step(PerGroup(limits, p), Gradients(gradients, [], layers, index, 0))
    # Where torch's sum overflows, it sets finite gradients to zero; ours are measured anew in float64.
    finite = bool(as_one(raw).isfinite().all())
    total = float(torch.nn.utils.get_total_norm(raw, p))
    if (finite and math.isinf(total)) or (not finite and scale == 1e15 and p in (1.5, 3.0)):
        return
    tiny = float(torch.finfo(dtype).smallest_normal)
    tolerance = 1e-6 if p in (1.0, 2.0, math.inf) else 5e-6  # what powers lose in float32 before and after the sum
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tiny, equal_nan=True)
    if all(abs(ratio - 1) > tolerance for ratio in over):
        assert decision.clipped is any(ratio > 1 for ratio in over)
    check_record(decision, raw, gradients, p, 1e-5)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 2**31), powers, st.floats(1e-3, 1e2), full)
def test_groups_of_equal_size_have_torchs_bits(
    count: int, size: int, seed: int, p: float, max_norm: float, dtype: torch.dtype
) -> None:
    groups = sorted(list(range(count)) * size)
    gradients = random_gradients([[3]] * len(groups), seed, 1.0, dtype)
    expected = [gradient.clone() for gradient in gradients]
    clip_groups(expected, groups, {group: max_norm for group in range(count)}, p)
    step(PerGroup(max_norm, p), Gradients(gradients, [], named(groups), None, 0))
    assert all(map(same_bits, gradients, expected))


@settings(deadline=None, max_examples=30)
@given(shapes, st.integers(0, 2**31), limits, half)
def test_half_precision_is_clipped_by_float32_norms(
    shapes: list[list[int]], seed: int, limits: list[float], dtype: torch.dtype
) -> None:
    gradients = random_gradients(shapes, seed, 1.0, dtype)
    groups = [place % 3 for place in range(len(shapes))]
    expected = [gradient.float() for gradient in gradients]
    clip_groups(expected, groups, dict(enumerate(limits)), 2.0)
    step(PerGroup(limits), Gradients(gradients, [], named(groups), None, 0))
    tiny = float(torch.finfo(dtype).smallest_normal)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=2.5 * torch.finfo(dtype).eps, atol=tiny)


def ones(count: int, value: float = 2.0) -> list[Tensor]:
    return [torch.tensor([value]) for _ in range(count)]


def after(strategy: PerGroup, layers: Named, places: list[int] | None = None, value: float = 2.0) -> list[float]:
    """What becomes of gradients of one element each."""
    gradients = ones(len(layers.names) if places is None else len(places), value)
    index = None if places is None else torch.tensor(places)
    step(strategy, Gradients(gradients, [], layers, index, 0))
    return [round(float(gradient), 5) for gradient in gradients]


def test_the_first_pattern_that_matches_wins(capsys: pytest.CaptureFixture[str]) -> None:
    layers = Named(["encoder.weight", "encoder.bias", "head.weight", "head.bias"])
    strategy = PerGroup({"encoder.*": 1.0, "*.bias": 0.1, "*": 0.5})
    assert after(strategy, layers) == [0.70711, 0.70711, 0.5, 0.1]
    assert after(strategy, layers, [1, 3]) == [1.0, 0.1]
    assert capsys.readouterr().err == ""


def test_layers_that_match_no_pattern_are_left_alone_and_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    layers = Named(["encoder.weight", *(f"head.{place}" for place in range(5))])
    strategy = PerGroup({"encoder.*": 1.0, "decoder.*": 1.0})
    for _ in range(2):
        assert after(strategy, layers) == [1.0, *[2.0] * 5]
    assert after(strategy, Named([*layers.names, "encoder.bias"])) == [0.70711, *[2.0] * 5, 0.70711]
    said = capsys.readouterr().err
    assert said.count("'head.0', 'head.1', 'head.2' and 2 more match no pattern and are not clipped") == 1
    assert said.count("no layer is left for 'decoder.*'") == 1 and said.count("\n") == 2


def test_layers_that_no_pattern_takes_are_left_alone_even_when_nan() -> None:
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([math.nan, 1.0])]
    layers = Named(["a", "b"])
    _, decision = step(PerGroup({"a": 1.0}), Gradients(gradients, [], layers, None, 0))
    torch.testing.assert_close(gradients[0], torch.tensor([0.6, 0.8]))
    assert gradients[1][1].item() == 1.0 and decision.clipped is True


def test_one_number_serves_every_parameter_group_and_the_layers_in_none() -> None:
    assert after(PerGroup(1.0), named([0, 1, 1, -1])) == [1.0, 0.70711, 0.70711, 1.0]


@pytest.mark.parametrize(
    ("given", "groups", "expected", "advice"),
    [
        ([1.0, 0.5], [0, 1, 2, 2], [1.0, 0.5, 0.35355, 0.35355], "2 thresholds for 3 parameter groups, the others get"),
        ([1.0, 0.5], [0, 0], [0.70711, 0.70711], "2 thresholds for 1 parameter groups, the last ones are not used"),
        ([1.0, 0.5], [-1, -1], [0.35355, 0.35355], "2 thresholds for 0 parameter groups, the last ones"),
        ([1.0, 0.5], [1, 0, -1], [0.5, 1.0, 0.5], ""),
    ],
)
def test_a_list_of_another_length_than_the_groups_is_said_once(
    given: list[float], groups: list[int], expected: list[float], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    strategy = PerGroup(given)
    assert after(strategy, named(groups)) == after(strategy, named(groups)) == expected
    said = capsys.readouterr().err
    assert advice in said and said.count("\n") == (1 if advice else 0)


def test_groups_follow_layers_that_grow_and_come_and_go() -> None:
    strategy = PerGroup([1.0, 0.5])
    assert after(strategy, named([0, 0])) == [0.70711, 0.70711]
    assert after(strategy, named([0, 0, 1, 1])) == [0.70711, 0.70711, 0.35355, 0.35355]
    assert after(strategy, named([0, 0, 1, 1]), [1, 2]) == [1.0, 0.5]
    assert after(strategy, named([0, 0, 1, 1]), [3]) == [0.5]
    assert after(strategy, named([0, 0, 1, 1]), []) == []
    assert after(strategy, named([1, 0, 0, 0])) == [0.5, 0.57735, 0.57735, 0.57735]


def test_nothing_is_multiplied_when_no_group_is_above() -> None:
    # The norm of the two groups together is above both thresholds, and does not count.
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([4.0, 4.0])]
    _, decision = step(PerGroup([5.5, 6.0]), Gradients(gradients, [], named([0, 1]), None, 0))
    assert decision == Decision(1.0, False, 5.5) and [gradient._version for gradient in gradients] == [0, 0]
    assert clip(PerGroup(1.0), [torch.zeros(3)])[1] == Decision(1.0, False, 1.0)
    assert clip(PerGroup({"nothing": 1.0}), ones(3))[1] == Decision(1.0, False, 1.0)
    assert clip(PerGroup(1.0), [])[1] == Decision(1.0, False, 1.0)


def test_a_non_finite_group_leaves_the_others_to_their_own_norms() -> None:
    gradients = [torch.tensor([math.inf, 1.0]), torch.tensor([3.0, 4.0]), torch.tensor([5.0])]
    _, decision = step(PerGroup(1.0), Gradients(gradients, [], named([0, 1, 0]), None, 0))
    torch.testing.assert_close(gradients[1], torch.tensor([0.6, 0.8]))
    assert math.isnan(gradients[0][0].item()) and gradients[0][1].item() == gradients[2].item() == 0.0
    assert decision.clipped is True and math.isnan(float(decision.coefficient))


def test_a_power_that_overflows_does_not_set_a_group_to_zero() -> None:
    # (1e14) ** 3 is beyond float32, the group's norm is not, and nor is the total norm of this one element.
    assert after(PerGroup(1.0, 3.0), named([0, 0]), [1], value=1e14) == [1.0]
    assert after(PerGroup(1.0, 3.0), named([0, 0]), value=1e14) == [0.7937, 0.7937]


def test_thresholds_follow_their_schedules() -> None:
    strategy = PerGroup([1.0, lambda at: 0.5 + at])
    layers = named([0, 1])
    for at, expected in ((0, [1.0, 0.5]), (1, [1.0, 1.5]), (1, [1.0, 1.5]), (0, [1.0, 0.5])):
        gradients = ones(2)
        _, decision = step(strategy, Gradients(gradients, [], layers, None, at))
        torch.testing.assert_close(torch.cat(gradients), torch.tensor(expected))
        assert decision.threshold == min(expected)


def test_setting_the_threshold_scales_all_alike() -> None:
    strategy = PerGroup({"a": 1.0, "b": 0.5, "*": math.inf})
    assert strategy.threshold == 0.5
    strategy.threshold = 0.1
    assert strategy.threshold == 0.1
    assert strategy.describe()["max_norm"] == {"a": 0.2, "b": 0.1, "*": "inf"}
    with pytest.raises(ValueError, match="clip=None"):
        strategy.threshold = 0
    assert strategy.threshold == 0.1
    none = PerGroup([math.inf, math.inf])
    none.threshold = 2.0
    assert none.describe()["max_norm"] == [2.0, 2.0]


def test_state_travels() -> None:
    old, new = PerGroup([1.0, 0.5]), PerGroup([3.0, 3.0])
    old.threshold = 0.25
    new.load_state_dict(old.state_dict())
    assert new.describe() == {"strategy": "PerGroup", "max_norm": [0.5, 0.25], "norm_type": 2.0}
    with pytest.raises(ValueError, match="2 thresholds, this one has 1"):
        PerGroup(1.0).load_state_dict(old.state_dict())
    check_travels(PerGroup({"layer0": 1.0, "*": math.inf}, math.inf))
    check_travels(PerGroup(1.0))
    check_schedules(PerGroup)


@pytest.mark.parametrize(
    "build",
    [
        lambda: PerGroup(1.0),
        lambda: PerGroup([1.0, 0.5], 3.0),
        lambda: PerGroup([1.0, lambda at: 1.0 + at]),
        lambda: PerGroup({"layer0": 1.0, "*2": 0.5}, math.inf),
    ],
)
def test_it_reads_no_value_from_a_device(build: Callable[[], PerGroup]) -> None:
    check_no_waiting(build())
    check_same_on_a_device(build)


def test_the_fall_back_keeps_every_group_below_its_threshold() -> None:
    gradients = random_gradients([[3, 4], [5]], 1, 10.0, torch.float32)
    ours, theirs = with_gradients(gradients), with_gradients(gradients)
    total = PerGroup([2.0, 0.5]).fall_back(ours)
    assert torch.equal(total, torch.nn.utils.clip_grad_norm_(theirs, 0.5))
    assert all(map(torch.equal, gradients_in(ours), gradients_in(theirs)))


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ((0,), "max_norm must be above 0.*clip=None"),
        (([1.0, -1.0],), r"max_norm\[1\] must be above 0"),
        (({"encoder.*": 0},), r"max_norm\['encoder.\*'\] must be above 0"),
        (([],), "one for each parameter group"),
        (({},), '"encoder'),
        (({0: 1.0},), '"encoder'),
        ((1.0, 0.5), "2.0 is"),
    ],
)
def test_wrong_arguments_say_what_to_write(arguments: tuple[Any, ...], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        PerGroup(*arguments)
    with pytest.raises(TypeError, match=r"max_norm\[0\] must be a number"):
        PerGroup([None])  # type: ignore[list-item]
