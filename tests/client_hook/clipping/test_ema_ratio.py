"""EMARatio against OLMo's rule, written out in plain numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gradwatch.clipping.ema_ratio import EMARatio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client_hook.clipping import adapting
from tests.client_hook.clipping.stepping import Named, clip, gradients_of


class Expected:
    """One average, and the limit it gives."""

    def __init__(self, ratio: float, decay: float) -> None:
        self.ratio, self.decay = ratio, decay
        self.average: float | None = None

    def step(self, norm: float, active: bool) -> float:
        limit = self.ratio * self.average if self.average is not None and active else math.inf
        if adapting.enter(norm):
            kept = min(norm, limit)
            self.average = kept if self.average is None else self.decay * self.average + (1 - self.decay) * kept
        return limit


@settings(max_examples=60, deadline=None)
@given(adapting.sequences, st.floats(1.01, 10), st.floats(0.01, 0.999), st.integers(0, 5))
def test_the_limit_is_a_multiple_of_the_average(norms: list[float], ratio: float, decay: float, warmup: int) -> None:
    decisions = adapting.steps(EMARatio(ratio, decay, warmup), norms)
    expected, seen = Expected(ratio, decay), 0
    for norm, decision in zip(norms, decisions, strict=True):
        limit = expected.step(norm, seen >= warmup)
        seen += adapting.enter(norm)
        assert decision.threshold == pytest.approx(limit, rel=1e-9, abs=1e-318)
        if not math.isnan(norm) and not 0 < abs(norm - limit) < 1e-9 * norm:
            assert decision.clipped is (norm > limit)
            left = limit / (norm + 1e-6) if norm > limit else 1.0
            assert decision.coefficient == pytest.approx(left, rel=1e-9, abs=1e-318)


def test_per_layer_is_olmos_rule_for_every_layer() -> None:
    """olmo/optim.py: allowed = ratio * average; coefficient = min(1, allowed / (norm + 1e-6)); the average moves on."""
    rng = np.random.default_rng(5)
    strategy = EMARatio(1.5, 0.9, per_layer=True)
    averages: list[float] = []
    for _ in range(200):
        norms = np.exp(rng.normal(3, 0.5, 4) + 2 * (rng.random(4) < 0.1))
        averages = averages or norms.tolist()
        gradients = [torch.tensor([norm], dtype=torch.float64) for norm in norms.tolist()]
        clip(strategy, gradients)
        for at, (norm, gradient) in enumerate(zip(norms.tolist(), gradients, strict=True)):
            factor = min(1.0, 1.5 * averages[at] / (norm + 1e-6))
            averages[at] += 0.1 * (norm * factor - averages[at])
            assert gradient.item() == pytest.approx(norm * factor, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(adapting.layer_rows, st.floats(1.01, 10), st.floats(0.01, 0.999), st.integers(0, 3))
def test_each_layer_has_an_average_of_its_own(rows: list[list[float]], ratio: float, decay: float, warmup: int) -> None:
    strategy = EMARatio(ratio, decay, warmup, per_layer=True)
    layers, seen = [Expected(ratio, decay) for _ in range(3)], 0
    for row in rows:
        gradients = [torch.tensor([norm], dtype=torch.float64) for norm in row]
        measurement, decision = clip(strategy, gradients)
        limits = [layer.step(norm, seen >= warmup) for layer, norm in zip(layers, row, strict=True)]
        seen += adapting.enter(measurement.total.item())
        assert decision.threshold == pytest.approx(math.hypot(*limits), rel=1e-9, abs=1e-318)
        for norm, limit, gradient in zip(row, limits, gradients, strict=True):
            if math.isinf(norm):
                assert not gradient.isfinite().item()
            elif not math.isnan(norm):
                assert gradient.item() == pytest.approx(min(norm, limit), rel=1e-9, abs=1e-318)
        if not any(0 < abs(norm - limit) <= 1e-9 * norm for norm, limit in zip(row, limits, strict=True)):
            assert decision.clipped is any(norm > limit for norm, limit in zip(row, limits, strict=True))


def test_coefficient_and_cosine_are_those_of_the_gradients() -> None:
    rng = np.random.default_rng(2)
    strategy = EMARatio(1.2, 0.9, per_layer=True, cap=4.0)
    for _ in range(30):
        before = [torch.from_numpy(rng.normal(size=5) * np.exp(rng.normal())) for _ in range(4)]
        after = [gradient.clone() for gradient in before]
        _, decision = clip(strategy, after)
        whole, left = torch.cat(before), torch.cat(after)
        assert left.norm() <= 4.0 + 1e-5
        assert decision.coefficient == pytest.approx((left.norm() / whole.norm()).item(), rel=1e-9)
        cosine = torch.nn.functional.cosine_similarity(whole, left, dim=0).item()
        assert decision.cosine == pytest.approx(cosine, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(adapting.layer_rows, st.booleans(), st.sampled_from([0, 3]), st.sampled_from([None, 20.0]))
def test_a_device_decides_as_the_cpu(rows: list[list[float]], per_layer: bool, warmup: int, cap: float | None) -> None:
    adapting.same_on_a_device(lambda: EMARatio(1.5, 0.9, warmup, per_layer, cap), rows)


def test_a_constant_tiny_layer_is_left_alone() -> None:
    strategy = EMARatio(per_layer=True)
    for _ in range(200):
        gradient = torch.tensor([1e-7])
        clip(strategy, [gradient])
        assert gradient.item() == pytest.approx(1e-7)


def test_averages_are_known_by_layer_name() -> None:
    strategy = EMARatio(2.0, per_layer=True)
    adapting.layer_steps(strategy, [[1.0, 100.0]])
    resumed = EMARatio(2.0, per_layer=True)
    resumed.load_state_dict(strategy.state_dict())
    tensors = [torch.tensor([norm], dtype=torch.float64) for norm in (300.0, 7.0, 9.0)]
    gradients = gradients_of(tensors)
    gradients.layers = Named(["layer1", "new", "layer0", "absent"])
    gradients.places = torch.tensor([0, 1, 2])
    measurement = resumed.measure(gradients)
    resumed.apply(measurement, gradients, resumed.decide(measurement, gradients))
    assert [tensor.item() for tensor in tensors] == pytest.approx([200.0, 7.0, 2.0])
    assert resumed.state_dict()["layers"] == pytest.approx({"layer0": 1.01, "layer1": 101.0, "new": 7.0})


def make(cap: Any = None) -> EMARatio:
    return EMARatio(warmup=3, cap=cap)


def make_per_layer(cap: Any = None) -> EMARatio:
    return EMARatio(warmup=3, per_layer=True, cap=cap)


@pytest.mark.parametrize("make", [make, make_per_layer])
def test_what_every_adaptive_strategy_does(make: Any) -> None:
    adapting.resumes(make)
    adapting.never_waits(make)
    adapting.untouched_when_not_clipped(make)
    adapting.ignores_empty_steps(make)
    adapting.takes_a_cap(make)
    adapting.refuses_the_state_of_another(make)


def test_described_as_constructed() -> None:
    assert EMARatio().describe() == {
        "strategy": "EMARatio",
        "ratio": 2.0,
        "decay": 0.99,
        "warmup": 0,
        "per_layer": False,
        "cap": "inf",
    }
    assert EMARatio().threshold_of == "total norm" and EMARatio(per_layer=True).threshold_of == "layer"


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"ratio": 1.0}, "twice the average"),
        ({"ratio": math.inf}, "twice the average"),
        ({"decay": 1.0}, "100 steps"),
        ({"decay": 0.0}, "100 steps"),
        ({"warmup": -1}, "second step"),
        ({"cap": -1}, "cap=None"),
    ],
)
def test_wrong_arguments_say_what_to_write(arguments: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        EMARatio(**arguments)
