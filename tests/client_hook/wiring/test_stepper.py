"""What is known of one optimizer: its scaler, and the parameters it updates that no clip covers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradwatch.wiring.stepper import Stepper, parameters_of, probe_of
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook


def nobody(parameter: Tensor) -> bool:
    return False


def trained(fused: bool = False) -> tuple[nn.Linear, torch.optim.Optimizer]:
    model = nn.Linear(3, 2)
    return model, torch.optim.AdamW(model.parameters(), fused=fused)


def scaled_backward(model: nn.Linear, scaler: torch.amp.GradScaler) -> None:
    scaler.scale(model(torch.ones(1, 3)).sum()).backward()


@pytest.mark.parametrize("fused", [False, True])
def test_the_scaler_is_found_on_the_stack_and_asked_for_its_stage(fused: bool) -> None:
    model, optimizer = trained(fused)
    scaler = torch.amp.GradScaler("cpu")
    stepper = Stepper()
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)  # wraps step, as trainers do
    hook = register_optimizer_step_pre_hook(lambda *arguments: stepper.find_scaler())
    scaled_backward(model, scaler)
    assert not stepper.is_scaled(optimizer, False)  # nothing known yet
    scaler.step(optimizer)
    scaler.update()
    hook.remove()
    schedule.step()
    optimizer.zero_grad()
    scaled_backward(model, scaler)
    assert stepper.is_scaled(optimizer, False)
    # A fused optimizer can unscale while it steps, and a clip that knows the scaler can count on that.
    assert stepper.is_scaled(optimizer, True) is not fused
    scaler.unscale_(optimizer)
    assert not stepper.is_scaled(optimizer, False) and not stepper.is_scaled(optimizer, True)
    del scaler
    assert not stepper.is_scaled(optimizer, False)


def test_a_scaler_that_is_switched_off_scales_nothing() -> None:
    model, optimizer = trained()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    stepper = Stepper()
    hook = register_optimizer_step_pre_hook(lambda *arguments: stepper.find_scaler())
    scaled_backward(model, scaler)
    scaler.step(optimizer)
    hook.remove()
    assert stepper._scaler() is scaler and not stepper.is_scaled(optimizer, False)


def test_without_a_scaler_none_is_found() -> None:
    stepper = Stepper()
    stepper.find_scaler()
    assert stepper._scaler() is None


def facts(stepper: Stepper, optimizer: torch.optim.Optimizer, covered: set[int], others: Any = nobody) -> Any:
    return stepper.uncovered(optimizer, covered, others)


def test_uncovered_parameters_are_counted_once_one_of_them_was_followed() -> None:
    model, optimizer = trained()
    stepper = Stepper()
    covered = {id(model.weight)}
    assert facts(stepper, optimizer, covered) is None  # no gradient yet
    for expected in (None, {"count": 1, "all": 2, "shape": (2,)}):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        assert facts(stepper, optimizer, covered) == expected
    assert facts(stepper, optimizer, covered | {id(model.bias)}) is None
    assert facts(stepper, optimizer, covered, lambda parameter: parameter is model.bias) is None
    stepper.close()
    assert not model.bias._post_accumulate_grad_hooks


def test_who_changes_the_others_by_other_means_is_left_alone_for_good() -> None:
    model, optimizer = trained()
    stepper = Stepper()
    for step in range(5):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        if step == 1:
            torch.nn.utils.clip_grad_norm_([model.bias], 0.1)
        assert facts(stepper, optimizer, {id(model.weight)}) is None
    stepper.close()


def test_parameters_come_group_by_group_and_odd_ones_get_no_probe() -> None:
    model = nn.Linear(3, 2)
    groups: list[dict[str, Any]] = [{"params": [model.bias]}, {"params": [model.weight]}]
    assert list(parameters_of(torch.optim.SGD(groups, lr=0.1))) == [model.bias, model.weight]
    assert probe_of(torch.ones(2)) is None and probe_of(model.bias) is not None
