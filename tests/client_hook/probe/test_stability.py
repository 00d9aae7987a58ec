"""Thresholds against real optimizers on quadratics just below and just above them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradwatch.probe.stability import stability_threshold
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

Build = Callable[[list[Tensor]], Optimizer]

SGDS: list[dict[str, Any]] = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 3.0},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.02, "momentum": 0.5, "weight_decay": 10.0},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 0.1, "momentum": 0.5, "nesterov": True, "weight_decay": 2.0},
    {"lr": 0.1, "momentum": 0.8, "dampening": 0.4},
    {"lr": 0.1, "momentum": 0.8, "dampening": 0.8, "weight_decay": 2.0},
]
# A large epsilon beside tiny gradients makes the preconditioner 1, whatever the second moment.
ADAMS: list[tuple[Any, dict[str, Any]]] = [
    (Adam, {"lr": 0.1}),
    (Adam, {"lr": 0.1, "betas": (0.5, 0.999), "weight_decay": 3.0}),
    (Adam, {"lr": 0.1, "betas": (0.0, 0.999), "amsgrad": True}),
    (AdamW, {"lr": 0.1, "weight_decay": 3.0}),
    (Adam, {"lr": 0.1, "betas": (0.7, 0.9), "weight_decay": 3.0, "decoupled_weight_decay": True}),
]


def grows(build: Build, curvature: float, steps: int = 1500) -> bool:
    """Whether the weights grow in the long run, under steps of the real optimizer on curvature / 2 * w**2.

    Adam's first steps, whose moments are corrected for their few gradients, make them grow in any case.
    """
    weight = torch.nn.Parameter(torch.tensor([1e-60], dtype=torch.float64))
    optimizer, sizes = build([weight]), list[float]()
    for _ in range(steps):
        weight.grad = curvature * weight.detach()
        optimizer.step()
        sizes.append(abs(float(weight.detach())))
        if sizes[-1] > 1e-6:
            return True
    return max(sizes[-20:]) > max(sizes[steps // 2 :][:20])


def measured(build: Build, curvature: float) -> float:
    """2 / eta_c along the update after many steps with a gradient that stands still, on curvature / 2 * w**2."""
    weight = torch.nn.Parameter(torch.tensor([1e-12], dtype=torch.float64))
    optimizer = build([weight])
    start = 1e-12
    for _ in range(400):
        with torch.no_grad():
            weight.fill_(start)
        weight.grad = curvature * weight.detach()
        optimizer.step()
    direction = (start - float(weight.detach())) / optimizer.param_groups[0]["lr"]
    # loss(w - eta D) > loss(w) from |w - eta D| > |w| on.
    return float(2 / (2 * start / direction))


@pytest.mark.parametrize("options", SGDS)
def test_sgd_is_stable_up_to_its_threshold(options: dict[str, Any]) -> None:
    def build(parameters: list[Tensor]) -> Optimizer:
        return SGD(parameters, **options)

    value = stability_threshold(build([torch.zeros(1, requires_grad=True)])).value
    gain = (1 - options.get("dampening", 0.0)) / (1 - options.get("momentum", 0.0))
    assert not grows(build, value / gain * 0.99)
    assert grows(build, value / gain * 1.01)


@pytest.mark.parametrize("build_class, options", ADAMS)
def test_adam_is_stable_up_to_its_threshold(build_class: Any, options: dict[str, Any]) -> None:
    def build(parameters: list[Tensor]) -> Optimizer:
        optimizer: Optimizer = build_class(parameters, eps=1.0, **options)
        return optimizer

    value = stability_threshold(build([torch.zeros(1, requires_grad=True)])).value
    assert not grows(build, value * 0.99)
    assert grows(build, value * 1.01)


@pytest.mark.parametrize("options", [options for options in SGDS if "weight_decay" not in options])
def test_what_a_probe_measures_along_sgds_updates_is_the_curvature_times_their_gain(options: dict[str, Any]) -> None:
    gain = (1 - options.get("dampening", 0.0)) / (1 - options.get("momentum", 0.0))
    found = measured(lambda parameters: SGD(parameters, **options), 7.0)
    assert found == pytest.approx(7.0 * gain, rel=1e-3 if options.get("momentum", 0) < 0.85 else 1e-2)


@pytest.mark.parametrize("build_class", [Adam, AdamW])
def test_what_a_probe_measures_along_adams_updates_is_the_preconditioned_curvature(build_class: Any) -> None:
    found = measured(lambda parameters: build_class(parameters, lr=0.1, eps=0.5, weight_decay=0.0), 7.0)
    assert found == pytest.approx(14.0, rel=1e-3)


def test_an_oscillation_is_measured_at_two_over_the_rate() -> None:
    """As the documentation says: at heavy ball's threshold each step leads to the mirror image of where it began."""
    momentum, rate = 0.9, 0.1
    weight = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = SGD([weight], lr=rate, momentum=momentum)
    for _ in range(2000):
        before = float(weight.detach())
        weight.grad = (2 + 2 * momentum) / rate * weight.detach()
        optimizer.step()
    direction = (before - float(weight.detach())) / rate
    assert 2 / (2 * before / direction) == pytest.approx(2 / rate, rel=2e-3)


@pytest.mark.parametrize(
    "options, value, rule",
    [
        ({}, 2 / 0.1, "2 / lr"),
        ({"weight_decay": 0.5}, 2 / 0.1 - 0.5, "2 / lr - wd"),
        ({"momentum": 0.9}, 3.8 / (0.1 * 0.1), "(2 + 2 momentum) / ((1 - momentum) lr)"),
        (
            {"momentum": 0.9, "nesterov": True, "weight_decay": 0.5},
            3.8 / (2.8 * 0.1 * 0.1) - 0.5 / 0.1,
            "(2 + 2 momentum) / ((1 + 2 momentum) (1 - momentum) lr) - wd / (1 - momentum)",
        ),
        (
            {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.5},
            3.8 / (0.1 * 0.1) - 0.5 * 0.7 / 0.1,
            "(2 + 2 momentum) / ((1 - momentum) lr) - wd (1 - dampening) / (1 - momentum)",
        ),
    ],
)
def test_the_rule_of_sgd_is_the_formula(options: dict[str, Any], value: float, rule: str) -> None:
    found = stability_threshold(SGD([torch.zeros(1, requires_grad=True)], lr=0.1, **options))
    assert found.value == pytest.approx(value) and found.rule == rule


@pytest.mark.parametrize(
    "build_class, decay, value, rule",
    [
        (Adam, 0.0, 38 / 0.1, "(2 + 2 beta1) / ((1 - beta1) lr)"),
        (Adam, 0.5, 38 / 0.1 - 0.5, "(2 + 2 beta1) / ((1 - beta1) lr) - wd"),
        (AdamW, 0.5, 38 / 0.1 - 0.5 * 19, "(2 + 2 beta1) / ((1 - beta1) lr) - wd (1 + beta1) / (1 - beta1)"),
    ],
)
def test_the_rule_of_adam_is_the_formula(build_class: Any, decay: float, value: float, rule: str) -> None:
    optimizer = build_class([torch.zeros(1, requires_grad=True)], lr=0.1, weight_decay=decay)
    found = stability_threshold(optimizer)
    assert found.value == pytest.approx(value) and found.rule == rule


def test_a_rate_given_or_a_tensor() -> None:
    weight = torch.zeros(1, requires_grad=True)
    assert stability_threshold(SGD([weight], lr=torch.tensor(0.5))).value == 4.0
    assert stability_threshold(SGD([weight], lr=0.5), learning_rate=0.25).value == 8.0
    with FakeTensorMode():
        optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        optimizer.param_groups[0]["lr"] = torch.empty((), device="cuda")
        value, rule = stability_threshold(optimizer)
        assert math.isnan(value) and "only the device knows" in rule
        assert stability_threshold(optimizer, 0.5).value == 4.0


def test_for_others_none_is_known() -> None:
    weight = torch.zeros(1, requires_grad=True)
    cases: list[tuple[Optimizer, str]] = [
        (RMSprop([weight]), "RMSprop"),
        (SGD([weight], lr=0.1, maximize=True), "an optimizer that maximizes"),
        (SGD([weight], lr=0.0), "a learning rate of 0"),
        (SGD([weight], lr=0.1, momentum=1.0), "momentum 1 with dampening 0"),
        (SGD([weight], lr=0.1, momentum=0.5, dampening=1.0), "momentum 0.5 with dampening 1"),
    ]
    for optimizer, of in cases:
        value, rule = stability_threshold(optimizer)
        assert math.isnan(value) and rule == f"no stability threshold is known for {of}"


def test_the_first_group_counts() -> None:
    one, other = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    groups: list[dict[str, Any]] = [{"params": [one], "lr": 0.5}, {"params": [other]}]
    assert stability_threshold(SGD(groups, lr=0.1)).value == 4.0
