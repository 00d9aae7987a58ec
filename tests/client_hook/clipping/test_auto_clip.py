"""AutoClip against numpy's percentile of everything that it should have kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gradwatch.clipping.auto_clip import AutoClip
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client_hook.clipping import adapting
from tests.client_hook.clipping.stepping import clip


def expected_thresholds(norms: list[float], percent: float, history: int, warmup: int) -> list[float]:
    seen: list[float] = []
    thresholds = []
    for norm in norms:
        ready = len(seen) >= warmup if len(seen) < history else True
        if adapting.enter(norm):
            seen = [*seen, norm][-history:]
        thresholds.append(float(np.percentile(seen, percent)) if ready and seen else math.inf)
    return thresholds


@settings(max_examples=60, deadline=None)
@given(adapting.sequences, st.floats(0.1, 100), st.integers(1, 20), st.integers(0, 20))
def test_the_threshold_is_numpys_percentile(norms: list[float], percent: float, history: int, warmup: int) -> None:
    warmup = min(warmup, history)
    decisions = adapting.steps(AutoClip(percent, history, warmup), norms)
    expected = expected_thresholds(norms, percent, history, warmup)
    np.testing.assert_allclose(adapting.thresholds(decisions), np.array(expected), rtol=1e-12)
    for norm, limit, decision in zip(norms, expected, decisions, strict=True):
        if math.isnan(norm):
            assert decision.clipped is False and math.isnan(float(decision.coefficient))
        elif abs(norm / limit - 1) > 1e-9:
            assert decision.clipped is (norm > limit)
            assert decision.coefficient == pytest.approx(limit / (norm + 1e-6) if norm > limit else 1.0, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(adapting.sequences, st.sampled_from([10.0, 50.0, 95.0]), st.sampled_from([0, 5]))
def test_a_device_decides_as_the_cpu(norms: list[float], percent: float, warmup: int) -> None:
    adapting.same_on_a_device(lambda: AutoClip(percent, 7, warmup), [[norm] for norm in norms])


def test_the_reference_is_followed_step_by_step() -> None:
    """pseeth/autoclip: append the norm, take the percentile of all, clip by it with torch."""
    rng = np.random.default_rng(3)
    strategy, seen = AutoClip(10.0), []
    for _ in range(50):
        gradient = torch.from_numpy(rng.normal(size=9) * np.exp(rng.normal()))
        parameter = torch.zeros(9, dtype=torch.float64, requires_grad=True)
        parameter.grad = gradient.clone()
        seen.append(float(parameter.grad.norm()))
        torch.nn.utils.clip_grad_norm_([parameter], float(np.percentile(seen, 10)))
        clip(strategy, [gradient])
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-6, atol=0)


def test_a_tenth_is_left_alone() -> None:
    norms = np.random.default_rng(0).permutation(np.arange(1.0, 2001.0)).tolist()
    clipped = adapting.clipped(adapting.steps(AutoClip(10.0), norms))
    assert 0.88 < clipped[100:].mean() < 0.92


def test_a_checkpoint_fits_a_shorter_or_longer_history() -> None:
    norms = np.random.default_rng(1).random(30).tolist()
    long, short, longer = AutoClip(50.0, 20), AutoClip(50.0, 5), AutoClip(50.0, 100)
    adapting.steps(long, norms)
    for other, kept in ((short, norms[-4:]), (longer, norms[-20:])):
        other.load_state_dict(long.state_dict())
        (decision,) = adapting.steps(other, [0.7])
        assert decision.threshold == pytest.approx(np.percentile([*kept, 0.7], 50), rel=1e-12)


def make(**arguments: float) -> AutoClip:
    return AutoClip(90.0, 50, **{"warmup": 5, **arguments})  # type: ignore[arg-type]


def test_what_every_adaptive_strategy_does() -> None:
    adapting.resumes(make)
    adapting.never_waits(make)
    adapting.untouched_when_not_clipped(make)
    adapting.ignores_empty_steps(make)
    adapting.takes_a_cap(make)
    adapting.refuses_the_state_of_another(make)


def test_described_as_constructed() -> None:
    described = AutoClip(5.0, 100, 10, 2.0).describe()
    assert described == {"strategy": "AutoClip", "percentile": 5.0, "history": 100, "warmup": 10, "cap": 2.0}
    assert AutoClip().describe()["cap"] == "inf"


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"percentile": 0}, "10.0 is the paper's"),
        ({"percentile": 101}, "10.0 is the paper's"),
        ({"history": 0}, "1000 is the default"),
        ({"history": 2.5}, "1000 is the default"),
        ({"warmup": -1}, "from the first step"),
        ({"warmup": 11, "history": 10}, "at most history"),
        ({"cap": -1}, "cap=None"),
    ],
)
def test_wrong_arguments_say_what_to_write(arguments: dict[str, float], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        AutoClip(**arguments)  # type: ignore[arg-type]
