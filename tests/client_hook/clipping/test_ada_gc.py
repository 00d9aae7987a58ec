"""AdaGC against the paper's rule in plain numbers, and against pytorch_optimizer's optimizer, which has it inside."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from gradwatch.clipping.ada_gc import AdaGC
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client_hook.clipping import adapting
from tests.client_hook.clipping.stepping import Named, clip, gradients_of

LayerNorms = list[float]


class Paper:
    """Algorithm 1 of arXiv:2502.11034 for layers of prescribed norms; what may not enter gamma does not."""

    def __init__(self, relative: float, beta: float, warmup: int, absolute: float, layers: int) -> None:
        self.relative, self.beta, self.absolute = relative, beta, absolute
        self.left_to_warm_up = warmup
        self.gamma = [math.inf] * layers

    def step(self, norms: LayerNorms) -> LayerNorms:
        total = math.sqrt(math.fsum(norm * norm for norm in norms))
        if self.left_to_warm_up > 0:
            factor = 1.0 if total <= self.absolute else self.absolute / (total + 1e-6)
            after = [norm * factor for norm in norms]
            for at, left in enumerate(after):
                self.gamma[at] = min(self.gamma[at], left) if adapting.enter(left) else self.gamma[at]
            self.left_to_warm_up -= adapting.enter(total)
            return after
        after = []
        for at, (norm, old) in enumerate(zip(norms, self.gamma, strict=True)):
            after.append(min(norm, self.relative * old))
            if adapting.enter(norm):
                self.gamma[at] = norm if math.isinf(old) else self.beta * old + (1 - self.beta) * after[-1]
        return after


@settings(max_examples=80, deadline=None)
@given(adapting.layer_rows, st.floats(1.01, 3), st.floats(0.01, 0.99), st.integers(0, 6), st.floats(0.1, 10))
def test_layers_are_clipped_as_the_paper_says(
    rows: list[LayerNorms], relative: float, beta: float, warmup: int, absolute: float
) -> None:
    strategy, paper = AdaGC(relative, beta, warmup, absolute), Paper(relative, beta, warmup, absolute, 3)
    for row in rows:
        gradients = [torch.tensor([norm], dtype=torch.float64) for norm in row]
        warming, before = paper.left_to_warm_up > 0, list(paper.gamma)
        _, decision = clip(strategy, gradients)
        after = paper.step(row)
        known = strategy.state_dict()["layers"]
        for at, gamma in enumerate(paper.gamma):
            assert known.get(f"layer{at}", math.inf) == pytest.approx(gamma, rel=1e-9, abs=1e-320)
        if all(map(math.isfinite, row)):
            assert [gradient.item() for gradient in gradients] == pytest.approx(after, rel=1e-9, abs=1e-320)
        expected = absolute if warming else relative * math.hypot(*before)
        assert decision.threshold == pytest.approx(expected, rel=1e-9, abs=1e-320)


def test_only_what_is_not_finite_is_lost() -> None:
    strategy = AdaGC(1.5, warmup=0)
    adapting.layer_steps(strategy, [[1.0, 2.0, 3.0]])
    gradients = [torch.tensor([norm]) for norm in (math.nan, math.inf, 30.0)]
    clip(strategy, gradients)
    assert not gradients[0].isfinite().item() and not gradients[1].isfinite().item()
    assert gradients[2].item() == pytest.approx(4.5)
    assert strategy.state_dict()["layers"] == pytest.approx({"layer0": 1.0, "layer1": 2.0, "layer2": 3.03})


def test_the_optimizer_of_pytorch_optimizer_keeps_the_same_gammas_and_moments() -> None:
    """Its Adam's first moment is made of the clipped gradients, so that it shows them."""
    optimizers = importlib.import_module("pytorch_optimizer")
    rng = np.random.default_rng(4)
    parameters = [torch.zeros(5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    # Their warm-up ends a step before the number given to them; eps is what they add to the total norm.
    theirs = optimizers.AdaGC(parameters, lr=1e-3, beta=0.9, warmup_steps=21, weight_decay=0.0, eps=1e-6)
    ours = AdaGC(beta=0.9, warmup=20)
    moments = [torch.zeros(5, dtype=torch.float64) for _ in range(3)]
    clips = 0
    for _ in range(150):
        gradients = [torch.from_numpy(rng.normal(size=5) * np.exp(rng.normal())) for _ in range(3)]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        theirs.step()
        _, decision = clip(ours, gradients)
        clips += bool(decision.clipped)
        gammas = ours.state_dict()["layers"]
        for at, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            moments[at].lerp_(gradient, 0.1)
            torch.testing.assert_close(theirs.state[parameter]["exp_avg"], moments[at], rtol=1e-6, atol=1e-7)
            assert gammas[f"layer{at}"] == pytest.approx(theirs.state[parameter]["gamma"].item(), rel=1e-6)
    assert clips > 50


def test_coefficient_and_cosine_are_those_of_the_gradients() -> None:
    rng = np.random.default_rng(2)
    strategy = AdaGC(1.05, 0.9, 5, 2.0, cap=1.5)
    for _ in range(30):
        before = [torch.from_numpy(rng.normal(size=5) * np.exp(rng.normal())) for _ in range(4)]
        after = [gradient.clone() for gradient in before]
        _, decision = clip(strategy, after)
        whole, left = torch.cat(before), torch.cat(after)
        assert left.norm() <= 1.5 + 1e-5
        assert decision.coefficient == pytest.approx((left.norm() / whole.norm()).item(), rel=1e-9)
        cosine = torch.nn.functional.cosine_similarity(whole, left, dim=0).item()
        assert decision.cosine == pytest.approx(cosine, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(adapting.layer_rows, st.sampled_from([0, 4]), st.sampled_from([None, 0.7]))
def test_a_device_decides_as_the_cpu(rows: list[LayerNorms], warmup: int, cap: float | None) -> None:
    adapting.same_on_a_device(lambda: AdaGC(1.5, 0.9, warmup, cap=cap), rows)


def test_a_zero_in_the_warm_up_does_not_freeze_its_layer() -> None:
    strategy = AdaGC(warmup=2)
    adapting.layer_steps(strategy, [[0.0, 0.5], [0.0, 0.5]])
    gradients = [torch.tensor([0.3]), torch.tensor([0.5])]
    clip(strategy, gradients)
    assert gradients[0].item() == pytest.approx(0.3)


def test_absent_layers_keep_their_gamma_and_new_ones_begin_with_their_own() -> None:
    strategy = AdaGC(1.5, 0.5, warmup=1, lambda_abs=100.0)
    adapting.layer_steps(strategy, [[1.0, 2.0]])
    resumed = AdaGC(1.5, 0.5, warmup=1, lambda_abs=100.0)
    resumed.load_state_dict(strategy.state_dict())
    tensors = [torch.tensor([norm], dtype=torch.float64) for norm in (10.0, 7.0)]
    gradients = gradients_of(tensors)
    gradients.layers = Named(["layer1", "layer0", "new"])
    gradients.places = torch.tensor([0, 2])
    measurement = resumed.measure(gradients)
    resumed.apply(measurement, gradients, resumed.decide(measurement, gradients))
    assert [tensor.item() for tensor in tensors] == pytest.approx([3.0, 7.0])
    assert resumed.state_dict()["layers"] == pytest.approx({"layer0": 1.0, "layer1": 2.5, "new": 7.0})


def make(cap: Any = None, **arguments: Any) -> AdaGC:
    return AdaGC(**{"warmup": 10, "lambda_abs": 100.0, "cap": cap, **arguments})


def test_what_every_adaptive_strategy_does() -> None:
    adapting.resumes(make)
    adapting.never_waits(make)
    adapting.untouched_when_not_clipped(make)
    adapting.ignores_empty_steps(make)
    adapting.takes_a_cap(make)
    adapting.refuses_the_state_of_another(make)


def test_the_warm_up_threshold_may_follow_a_schedule() -> None:
    strategy = AdaGC(lambda_abs=lambda step: 1.0 + step)
    decisions = [clip(strategy, [torch.tensor([9.0])], step)[1] for step in range(3)]
    assert [decision.threshold for decision in decisions] == [1.0, 2.0, 3.0]


def test_described_as_constructed() -> None:
    assert AdaGC().describe() == {
        "strategy": "AdaGC",
        "lambda_rel": 1.05,
        "beta": 0.98,
        "warmup": 100,
        "lambda_abs": 1.0,
        "cap": "inf",
    }


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"lambda_rel": 1.0}, "1.05 is the usual"),
        ({"beta": 1.0}, "0.98 is the usual"),
        ({"warmup": -1}, "100 is the usual"),
        ({"warmup": 1.5}, "100 is the usual"),
        ({"lambda_abs": 0}, "1.0 is the usual"),
        ({"cap": -1}, "cap=None"),
    ],
)
def test_wrong_arguments_say_what_to_write(arguments: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        AdaGC(**arguments)
