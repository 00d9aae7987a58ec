"""ZClip against the authors' package, and against plain sums where that package would break."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from gradwatch.clipping.z_clip import ZClip
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.client_hook.clipping import adapting
from tests.client_hook.clipping.stepping import clip

FORMS: list[dict[str, Any]] = [
    {"clip_option": "adaptive_scaling"},
    {"clip_option": "adaptive_scaling", "clip_factor": 0.7},
    {"clip_option": "mean"},
    {"mode": "percentile"},
]
MODES = [{**form, "skip_update_on_spike": skip} for form in FORMS for skip in (False, True)]


def spiky_norms(seed: int, count: int) -> list[float]:
    rng = np.random.default_rng(seed)
    norms = np.exp(rng.normal(0, 0.4, count) + rng.normal()) * np.where(rng.random(count) < 0.1, 30.0, 1.0)
    return [float(norm) for norm in norms * 3]


@pytest.mark.parametrize("options", MODES, ids=str)
@pytest.mark.parametrize("cap", [1.0, None, 8.0])
def test_every_step_is_the_packages(options: dict[str, Any], cap: float | None) -> None:
    """Gradients and kept state after every one of 250 steps, in every mode."""
    zclip = importlib.import_module("zclip")
    ours = ZClip(2.0, 0.95, 20, cap, **options)
    theirs = zclip.ZClip(z_thresh=2.0, alpha=0.95, warmup_steps=20, max_grad_norm=cap, **options)
    clips = 0
    for step, norm in enumerate(spiky_norms(6, 250)):
        gradient = torch.tensor([0.6, 0.8], dtype=torch.float64) * norm
        model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
        model.weight.grad = gradient.reshape(1, 2).clone()
        theirs.step(model)
        _, decision = clip(ours, [gradient], step)
        clips += bool(decision.clipped)
        torch.testing.assert_close(gradient, model.weight.grad.flatten(), rtol=1e-6, atol=0)
        if theirs.initialized:
            state = ours.state_dict()["state"]
            assert state["mean"] == pytest.approx(theirs.mean, rel=1e-9)
            assert state["variance"] == pytest.approx(theirs.var, rel=1e-9)
    assert clips > 10


def expected_state(norms: list[float], warmup: int, alpha: float, z_thresh: float) -> tuple[float, float, int]:
    """Mode "zscore", "adaptive_scaling", over the norms that may enter, in whole sums."""
    first: list[float] = []
    mean = variance = 0.0
    for norm in norms:
        if not 0 < norm < 1e150:
            continue
        if len(first) < warmup:
            first.append(norm)
            mean, variance = float(np.mean(first)), float(np.var(first))
            continue
        z = (norm - mean) / (math.sqrt(variance) + 1e-6)
        if z > z_thresh:
            norm = mean + z_thresh * math.sqrt(variance) * z_thresh / z
        mean = alpha * mean + (1 - alpha) * norm
        variance = alpha * variance + (1 - alpha) * (norm - mean) ** 2
    return mean, variance, len(first)


@settings(max_examples=60, deadline=None)
@given(adapting.nasty_norms, st.integers(1, 10))
def test_no_norm_poisons_the_state(norms: list[float], warmup: int) -> None:
    strategy = ZClip(2.5, 0.9, warmup, cap=None)
    decisions = adapting.steps(strategy, norms)
    state = strategy.state_dict()["state"]
    mean, variance, first = expected_state(norms, warmup, 0.9, 2.5)
    assert min(state["count"], warmup) == first
    assert state["mean"] == pytest.approx(mean, rel=1e-6)
    assert state["variance"] == pytest.approx(variance, rel=1e-6, abs=1e-9 * mean**2)
    for norm, decision in zip(norms, decisions, strict=True):
        assert decision.clipped is (norm > decision.threshold)
        assert float(decision.threshold) > 0
        assert math.isfinite(float(decision.coefficient)) or math.isnan(norm)


@settings(max_examples=30, deadline=None)
@given(st.lists(adapting.plain_norms | st.sampled_from([math.nan, math.inf, 0.0]), max_size=40), st.sampled_from(MODES))
def test_a_device_decides_as_the_cpu(norms: list[float], options: dict[str, Any]) -> None:
    adapting.same_on_a_device(lambda: ZClip(1.5, 0.9, 5, 50.0, **options), [[norm] for norm in norms])


def test_zeros_in_the_warm_up_do_not_stop_the_training() -> None:
    strategy = ZClip(warmup=3)
    adapting.steps(strategy, [0.0] * 10)
    (decision,) = adapting.steps(strategy, [0.5])
    assert decision.coefficient == 1.0 and decision.clipped is False


def test_after_a_nan_spikes_are_still_clipped() -> None:
    strategy = ZClip(warmup=4, cap=None)
    adapting.steps(strategy, [1.0, math.nan, 1.1, 0.9, 1.0, math.nan, 1.05])
    spike, infinite = adapting.steps(strategy, [4.5e6, math.inf])
    assert spike.clipped is True and float(spike.coefficient) * 4.5e6 < 1.2
    assert infinite.clipped is True and infinite.coefficient == 0.0


def make(cap: Any = None) -> ZClip:
    return ZClip(warmup=10, cap=cap)


def test_what_every_adaptive_strategy_does() -> None:
    adapting.resumes(make)
    for options in MODES:
        adapting.never_waits(lambda options=options: ZClip(cap=None, **options))  # type: ignore[misc]
    adapting.untouched_when_not_clipped(make)
    adapting.ignores_empty_steps(make)
    adapting.takes_a_cap(make)
    adapting.refuses_the_state_of_another(make)


def test_the_cap_is_the_references_unless_told_otherwise() -> None:
    assert ZClip().describe() == {
        "strategy": "ZClip",
        "z_thresh": 2.5,
        "alpha": 0.97,
        "warmup": 25,
        "mode": "zscore",
        "clip_option": "adaptive_scaling",
        "clip_factor": 1.0,
        "skip_update_on_spike": False,
        "cap": 1.0,
    }


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"z_thresh": 0}, "2.5 is the paper's"),
        ({"alpha": 1.0}, "0.97 is the paper's"),
        ({"alpha": math.nan}, "0.97 is the paper's"),
        ({"warmup": 0}, "25 is the paper's"),
        ({"mode": "quantile"}, '"percentile"'),
        ({"clip_option": "median"}, '"adaptive_scaling"'),
        ({"clip_factor": 1.5}, "1.0 is the paper's"),
        ({"cap": 0}, "cap=None"),
    ],
)
def test_wrong_arguments_say_what_to_write(arguments: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        ZClip(**arguments)
