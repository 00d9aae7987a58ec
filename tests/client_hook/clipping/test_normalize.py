"""Normalising against the formula in float64, and against what becomes of the gradients."""

from __future__ import annotations

import math

import pytest
import torch
from gradwatch.clipping.normalize import Normalize
from gradwatch.clipping.strategy import Decision
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client_hook.clipping.stepping import clip
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
    shapes,
    with_gradients,
)


@settings(deadline=None)
@given(shapes, st.integers(0, 2**31), scales, st.floats(1e-3, 1e3), planted, full | half)
def test_the_total_norm_becomes_the_scale(
    shapes: list[list[int]], seed: int, scale: float, target: float, value: float | None, dtype: torch.dtype
) -> None:
    gradients = random_gradients(shapes, seed, scale, dtype)
    plant(gradients, seed, value)
    raw = [gradient.clone() for gradient in gradients]
    old = as_one(raw)
    measurement, decision = clip(Normalize(target), gradients)
    if not bool(old.isfinite().all()):
        return
    norm = float(measurement.total)
    factor = target / (norm + 1e-6) if norm else 1.0
    tiny = float(torch.finfo(dtype).smallest_normal)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6}.get(dtype, 1.01 * torch.finfo(dtype).eps)
    torch.testing.assert_close(as_one(gradients), old * factor, rtol=tolerance, atol=tiny)
    assert decision.clipped is (norm > target) and decision.threshold == target and decision.cosine == 1.0
    if norm and dtype in (torch.float32, torch.float64) and factor * norm > 1e-30:
        check_record(decision, raw, gradients, 2.0, 1e-5)


@pytest.mark.parametrize(("scale", "clipped"), [(2.0, False), (0.6, False), (0.4, True)])
def test_only_shrinking_is_a_clip_event(scale: float, clipped: bool) -> None:
    gradients = [torch.tensor([0.3]), torch.tensor([0.4])]
    _, decision = clip(Normalize(scale), gradients)
    torch.testing.assert_close(torch.cat(gradients), torch.tensor([0.6, 0.8]) * scale, rtol=1e-5, atol=0)
    assert decision.clipped is clipped and decision.coefficient == pytest.approx(2 * scale, rel=1e-5)


def test_zero_gradients_stay_zero_and_are_not_multiplied() -> None:
    gradients = [torch.zeros(3)]
    assert clip(Normalize(1e38), gradients)[1] == Decision(1.0, False, 1e38)
    assert gradients[0]._version == 0 and gradients[0].tolist() == [0.0] * 3
    assert clip(Normalize(), [])[1] == Decision(1.0, False, 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_gradients_come_out_as_from_torchs_clipping(bad: float) -> None:
    gradients = [torch.tensor([bad, 1.0]), torch.tensor([2.0])]
    expected = with_gradients(gradients)
    torch.nn.utils.clip_grad_norm_(expected, 1.0)
    _, decision = clip(Normalize(), gradients)
    assert all(map(same_bits, gradients, gradients_in(expected)))
    assert decision.coefficient == 0.0 or math.isnan(float(decision.coefficient))


def test_an_infinite_scale_leaves_everything_alone() -> None:
    gradients = [torch.tensor([3.0, math.inf])]
    assert clip(Normalize(math.inf), gradients)[1] == Decision(1.0, False, math.inf)
    assert gradients[0].tolist() == [3.0, math.inf]


def test_it_reads_no_value_from_a_device() -> None:
    check_no_waiting(Normalize())
    check_same_on_a_device(lambda: Normalize(2.0))


def test_the_fall_back_clips_at_the_scale() -> None:
    gradients = random_gradients([[3, 4], [5]], 1, 10.0, torch.float32)
    ours, theirs = with_gradients(gradients), with_gradients(gradients)
    total = Normalize(0.5).fall_back(ours)
    assert torch.equal(total, torch.nn.utils.clip_grad_norm_(theirs, 0.5))
    assert all(map(torch.equal, gradients_in(ours), gradients_in(theirs)))


def test_a_schedule_and_a_set_scale_take_effect() -> None:
    check_schedules(Normalize)


def test_it_travels_and_describes_itself() -> None:
    check_travels(Normalize(2.0, eps=1e-8))
    assert Normalize(2.0, eps=1e-8).describe() == {"strategy": "Normalize", "scale": 2.0, "eps": 1e-8}


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [((0,), "clip=None"), ((-1.0,), "clip=None"), ((1.0, 0), "eps=1e-6"), ((1.0, math.inf), "eps=1e-6")],
)
def test_wrong_arguments_say_what_to_write(arguments: tuple[float, ...], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        Normalize(*arguments)


@pytest.mark.parametrize("eps", ["small", None, True])
def test_what_is_no_number_is_refused(eps: object) -> None:
    with pytest.raises(TypeError, match="eps=1e-6"):
        Normalize(1.0, eps)  # type: ignore[arg-type]
