"""SkipSpikes against the rules of OLMo-core, Levanter and icefall, written out over plain lists."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from gradwatch.clipping.skip_spikes import SkipSpikes
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client_hook.clipping import adapting
from tests.client_hook.clipping.stepping import clip


def expected_limit(before: list[float], by: str, sigma: float, scale: float, least: int) -> float:
    if len(before) < least:
        return math.inf
    if by == "median":
        return scale * statistics.median(before)
    mean = float(np.mean(before))
    return mean + sigma * max(float(np.std(before, ddof=1)), 1e-6 * mean)


@settings(max_examples=80, deadline=None)
@given(adapting.sequences, st.integers(4, 12), st.sampled_from(["sigma", "median"]), st.integers(1, 4))
def test_steps_are_skipped_by_the_rule(norms: list[float], window: int, by: Any, patience: int) -> None:
    strategy = SkipSpikes(window, 2.0, 3, by, 3.0, max_consecutive=patience)
    before: list[float] = []
    skipped_in_a_row = 0
    for step, norm in enumerate(norms):
        limit = expected_limit(before, by, 2.0, 3.0, 3)
        (decision,) = adapting.steps(strategy, [norm], step)
        assert decision.threshold == pytest.approx(limit, rel=1e-9)
        limit = float(decision.threshold)  # last digits decide what follows
        spike = limit < norm < math.inf
        assert decision.skip is (not math.isfinite(norm) or (spike and skipped_in_a_row < patience))
        assert decision.clipped is (decision.skip or spike)
        if decision.skip:
            assert decision.coefficient == 0.0 and decision.multiplier is None
        elif spike:
            assert decision.coefficient == pytest.approx(limit / norm, rel=1e-5, abs=1e-320)
        else:
            assert decision.coefficient == 1.0 and decision.multiplier is None
        if math.isfinite(norm):
            skipped_in_a_row = skipped_in_a_row + 1 if decision.skip else 0
        if 0 < norm < 1e150:
            before = [*before, norm][-window:]


@settings(max_examples=60, deadline=None)
@given(adapting.sequences, st.integers(4, 12), st.sampled_from(["sigma", "median"]))
def test_spikes_are_clipped_by_the_rule(norms: list[float], window: int, by: Any) -> None:
    strategy = SkipSpikes(window, 3.0, 2, by, 2.0, "clip")
    before: list[float] = []
    for step, norm in enumerate(norms):
        limit = expected_limit(before, by, 3.0, 2.0, 2)
        (decision,) = adapting.steps(strategy, [norm], step)
        assert decision.threshold == pytest.approx(limit, rel=1e-9)
        assert decision.skip is False and decision.clipped is (norm > decision.threshold)
        if norm <= decision.threshold:
            assert decision.coefficient == 1.0
        elif norm < math.inf:
            assert decision.coefficient == pytest.approx(limit / norm, rel=1e-5, abs=1e-320)
        if 0 < norm < 1e150:
            before = [*before, norm][-window:]


def test_olmo_cores_decisions_on_an_ordinary_training() -> None:
    """Half a window first; then more than 6 sample standard deviations above the mean of the last 128 is skipped."""
    rng = np.random.default_rng(8)
    norms = (np.exp(rng.normal(0, 0.2, 600)) * np.where(rng.random(600) < 0.02, 8.0, 1.0)).tolist()
    expected, history = [], torch.zeros(0, dtype=torch.float64)
    for norm in norms:
        deviation, mean = torch.std_mean(history[-128:]) if len(history) >= 64 else (torch.tensor(math.inf), 0.0)
        expected.append(bool(norm - mean > 6 * deviation))
        history = torch.cat((history, torch.tensor([norm], dtype=torch.float64)))
    skipped = [decision.skip for decision in adapting.steps(SkipSpikes(), norms)]
    assert skipped == expected and 3 < sum(skipped) < 20


@settings(max_examples=40, deadline=None)
@given(
    adapting.sequences,
    st.sampled_from(["sigma", "median"]),
    st.sampled_from(["skip", "clip"]),
    st.sampled_from([None, 5.0]),
)
def test_a_device_decides_as_the_cpu(norms: list[float], by: Any, action: Any, cap: float | None) -> None:
    rows = [[norm] for norm in norms if norm != 1e200]
    adapting.same_on_a_device(lambda: SkipSpikes(6, 3.0, 3, by, 2.0, action, 2, cap), rows)


@pytest.mark.parametrize("by", ["sigma", "median"])
def test_a_lasting_jump_cannot_stop_the_training(by: Any) -> None:
    strategy = SkipSpikes(by=by)
    decisions = adapting.steps(strategy, [1.0 + at % 7 / 10 for at in range(128)] + [1000.0] * 200)
    skips = [decision.skip for decision in decisions]
    assert not any(skips[:128]) and skips[128] is True
    longest = max(len(run) for run in "".join("s" if skip else " " for skip in skips).split())
    assert longest <= 10
    forced = decisions[128 + 10]
    if by == "median":
        assert forced.clipped is True and 0 < float(forced.coefficient) < 0.02
    assert not any(skips[-100:])


def test_an_explosion_is_skipped_and_then_clipped() -> None:
    strategy = SkipSpikes(16, max_consecutive=3)
    decisions = adapting.steps(strategy, [1.0, 1.1] * 8 + [10.0**power for power in range(2, 10)])
    assert [decision.skip for decision in decisions[16:]] == [True, True, True, False] * 2
    for decision in (decisions[19], decisions[23]):
        assert decision.clipped is True and 0 < float(decision.coefficient) < 1


@pytest.mark.parametrize("count", [0, 100])
def test_what_is_not_finite_is_always_skipped_and_forgotten(count: int) -> None:
    strategy = SkipSpikes(max_consecutive=2)
    adapting.steps(strategy, [1.0, 1.2] * count)
    before = strategy.state_dict()
    decisions = adapting.steps(strategy, [math.nan, math.inf] * 10)
    assert all(decision.skip is True and decision.clipped is True for decision in decisions)
    assert strategy.state_dict() == before


def test_a_nan_between_two_spikes_neither_ends_nor_lengthens_their_row() -> None:
    norms = [1.0, 1.1] * 8 + [100.0, math.nan, math.inf, 1e4, 1e6, 1e8]
    decisions = adapting.steps(SkipSpikes(16, max_consecutive=2), norms)
    assert [decision.skip for decision in decisions[16:]] == [True, True, True, True, False, True]
    with adapting.as_on_a_device():
        there = adapting.steps(SkipSpikes(16, max_consecutive=2), norms)
    assert [bool(decision.skip) for decision in there] == [decision.skip for decision in decisions]


def test_a_skipped_step_leaves_its_gradients_alone() -> None:
    gradient = torch.tensor([math.inf, 3.0])
    version = gradient._version
    clip(SkipSpikes(), [gradient])
    assert gradient._version == version


def make(cap: Any = None, **arguments: Any) -> SkipSpikes:
    return SkipSpikes(32, 3.0, cap=cap, **arguments)


@pytest.mark.parametrize(
    "options", [{"by": by, "action": act} for by in ("sigma", "median") for act in ("skip", "clip")]
)
def test_what_every_adaptive_strategy_does(options: dict[str, Any]) -> None:
    adapting.resumes(lambda: make(**options))
    adapting.never_waits(lambda: make(**options))
    adapting.untouched_when_not_clipped(lambda: make(**options))
    adapting.ignores_empty_steps(lambda: make(**options))
    adapting.takes_a_cap(lambda cap: make(cap, **options))
    adapting.refuses_the_state_of_another(lambda: make(**options))


def test_described_as_constructed() -> None:
    assert SkipSpikes().describe() == {
        "strategy": "SkipSpikes",
        "window": 128,
        "sigma": 6.0,
        "min_count": 64,
        "by": "sigma",
        "scale": 10.0,
        "action": "skip",
        "max_consecutive": 10,
        "cap": "inf",
    }
    assert SkipSpikes().skips and not SkipSpikes(action="clip").skips


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"window": 1}, "128 is the default"),
        ({"sigma": 0.0}, "6.0 for skipping"),
        ({"min_count": 1}, "half the window"),
        ({"min_count": 200}, "at most window"),
        ({"by": "mean"}, '"median"'),
        ({"scale": 1.0}, "2.0 for clipping"),
        ({"action": "raise"}, '"clip"'),
        ({"max_consecutive": 0}, "10 is the default"),
        ({"cap": 0}, "cap=None"),
    ],
)
def test_wrong_arguments_say_what_to_write(arguments: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        SkipSpikes(**arguments)
