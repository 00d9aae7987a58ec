"""Wrong wirings of real trainers, rebuilt small, are found and told once; right ones, however odd, never are."""

from __future__ import annotations

import copy
import gc
import io
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from gradwatch import clip_grad_norm_, clip_grad_value_, registry
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.monitor import Monitor
from gradwatch.wiring import step_hooks
from gradwatch.wiring.findings import Finding
from gradwatch.wiring.observer import Wiring
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer

from tests.client_hook.conftest import KeepingSink, monitor_of

STEPS = 24


class Training:
    """A small model, its optimizer and its monitor, as ``watch`` builds one, with the findings told."""

    def __init__(self, sink: KeepingSink, optimizer_type: Any = torch.optim.SGD, **options: Any) -> None:
        torch.manual_seed(0)
        self.model: Any = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
        self.optimizer = optimizer_type(self.model.parameters(), lr=0.01, **options)
        self.sink = sink
        self.monitor = monitor_of(self.model, [self.optimizer], GlobalNorm(0.5), sink)
        self.monitor.watch_wiring()

    def loss(self) -> Tensor:
        loss: Tensor = self.model(torch.randn(8, 4)).square().mean() + self.model[0].weight.square().sum()
        return loss

    def backward(self) -> Tensor:
        loss = self.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    @property
    def found(self) -> list[str]:
        return [text.partition(":")[0] for _, name, text in self.sink.events if name == "wiring"]


@pytest.fixture(autouse=True)
def hooks_are_gone_afterwards() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    if step_hooks._observing:
        gc.collect()
    step_hooks.leave(Wiring(lambda parameter: False, lambda key, text: None))
    assert not torch_optimizer._global_optimizer_pre_hooks and not torch_optimizer._global_optimizer_post_hooks


Loop = Callable[[Training], None]


# Wrong, as found in real trainers.


def clip_after_the_step(training: Training) -> None:  # awslabs/graphstorm#1366
    training.optimizer.zero_grad()
    training.backward()
    training.optimizer.step()
    training.monitor.clip()


def clip_after_the_step_and_zeroing(training: Training) -> None:
    training.backward()
    training.optimizer.step()
    training.optimizer.zero_grad()
    training.monitor.clip()


def clip_in_training_step(training: Training) -> None:  # simchowitzlabpublic/nano-world-model#22
    loss = training.loss()
    training.monitor.clip(loss)
    training.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    training.optimizer.step()


def clip_in_training_step_within_a_closure(training: Training) -> None:  # the same, as Lightning runs it
    def closure() -> float:
        clip = training.loss()
        training.monitor.clip(clip)
        training.optimizer.zero_grad()
        clip.backward()  # type: ignore[no-untyped-call]
        return float(clip.detach())

    training.optimizer.step(closure)


def clip_between_zeroing_and_backward(training: Training) -> None:
    training.optimizer.zero_grad(set_to_none=False)
    loss = training.loss()
    training.monitor.clip(loss)
    loss.backward()  # type: ignore[no-untyped-call]
    training.optimizer.step()


def clip_every_micro_batch(training: Training) -> None:  # facebookresearch/lingua#59
    for _ in range(3):
        training.monitor.clip(training.backward())
    training.optimizer.step()
    training.optimizer.zero_grad()


def clip_at_the_first_micro_batch(training: Training) -> None:
    training.monitor.clip(training.backward())
    training.backward()
    training.optimizer.step()
    training.optimizer.zero_grad()


def clip_outside_a_closure(training: Training) -> None:
    def closure() -> float:
        training.optimizer.zero_grad()
        return float(training.backward().detach())

    training.monitor.clip(training.backward())
    training.optimizer.step(closure)


def clip_twice(training: Training) -> None:
    training.optimizer.zero_grad()
    loss = training.backward()
    training.monitor.clip(loss)
    training.monitor.clip(loss)
    training.optimizer.step()


def never_clip(training: Training) -> None:
    training.optimizer.zero_grad()
    training.backward()
    training.optimizer.step()


def zero_before_the_clip(training: Training) -> None:
    training.backward()
    training.optimizer.zero_grad()
    training.monitor.clip()
    training.optimizer.step()


def zero_in_place_before_the_clip(training: Training) -> None:
    training.backward()
    training.optimizer.zero_grad(set_to_none=False)
    training.monitor.clip()
    training.optimizer.step()


def clip_a_part(training: Training) -> None:
    training.optimizer.zero_grad()
    training.backward()
    clip_grad_norm_(training.model[:3].parameters(), 0.5)
    training.optimizer.step()


WRONG: list[tuple[Loop, Finding, str]] = [
    (clip_after_the_step, Finding.AFTER_STEP, "loss.backward(); monitor.clip(loss); optimizer.step()"),
    (clip_after_the_step_and_zeroing, Finding.AFTER_STEP, "monitor.clip(loss); optimizer.step()"),
    (clip_in_training_step, Finding.BEFORE_BACKWARD, "loss.backward(); monitor.clip(loss); optimizer.step()"),
    (clip_in_training_step_within_a_closure, Finding.BEFORE_BACKWARD, "loss.backward(); monitor.clip(loss)"),
    (clip_between_zeroing_and_backward, Finding.BEFORE_BACKWARD, "loss.backward(); monitor.clip(loss)"),
    (clip_every_micro_batch, Finding.MICRO_BATCH, "if (i + 1) % accumulation == 0: monitor.clip(loss)"),
    (clip_at_the_first_micro_batch, Finding.BACKWARD_BETWEEN, "clip after the last backward"),
    (clip_outside_a_closure, Finding.BACKWARD_BETWEEN, "inside the closure"),
    (clip_twice, Finding.TWICE, "one of them only"),
    (never_clip, Finding.NEVER, "monitor.clip(loss)"),
    (zero_before_the_clip, Finding.ZEROED, "optimizer.zero_grad(); loss.backward(); monitor.clip(loss)"),
    (zero_in_place_before_the_clip, Finding.ZEROED, "optimizer.zero_grad(); loss.backward(); monitor.clip(loss)"),
    (clip_a_part, Finding.SUBSET, "all parameters of the optimizer"),
]


@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize(("loop", "finding", "code"), WRONG, ids=[case[0].__name__ for case in WRONG])
def test_a_wrong_wiring_is_told_once_with_the_right_code(
    loop: Loop, finding: Finding, code: str, optimizer_type: Any, sink: KeepingSink, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training(sink, optimizer_type)
    registry.remember(training.model, training.monitor)
    for _ in range(STEPS):
        loop(training)
    assert training.found == [finding.value]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gradwatch: ")]
    assert line.startswith(f"gradwatch: {finding.value}: ") and code in line and len(line) < 400


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("where", ["without unscale_", "before unscale_"])
def test_a_clip_of_scaled_gradients_is_told(fused: bool, where: str, sink: KeepingSink) -> None:
    """pytorch/examples#1196, milesial/Pytorch-UNet#468."""
    training = Training(sink, torch.optim.AdamW, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for _ in range(STEPS):
        training.optimizer.zero_grad()
        loss = training.loss()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        training.monitor.clip(loss)
        if where == "before unscale_":
            scaler.unscale_(training.optimizer)
        scaler.step(training.optimizer)
        scaler.update()
    assert training.found == [Finding.SCALED.value]
    assert (
        "monitor.clip(loss, scaler=scaler)" in sink.events[0][2] and "scaler.unscale_(optimizer)" in sink.events[0][2]
    )


def test_a_scaler_given_to_a_monitor_that_knows_no_optimizer_is_told(sink: KeepingSink) -> None:
    training = Training(sink)
    training.monitor.optimizers.clear()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for _ in range(STEPS):
        training.optimizer.zero_grad()
        scaler.scale(training.loss()).backward()  # type: ignore[no-untyped-call]
        training.monitor.clip(scaler=scaler)
        scaler.step(training.optimizer)
        scaler.update()
    assert training.found == [Finding.SCALED.value]


def test_optimizers_that_step_in_the_backward_leave_the_clip_nothing(sink: KeepingSink) -> None:
    """pytorch/torchtitan#990."""
    training = Training(sink)
    optimizers = {parameter: torch.optim.SGD([parameter], lr=0.01) for parameter in training.model.parameters()}

    def step(parameter: Tensor) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in training.model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    for _ in range(STEPS):
        training.monitor.clip(training.backward())
    assert training.found == [Finding.IN_BACKWARD.value]


def test_optimizers_that_clip_and_step_in_the_backward_are_left_alone(sink: KeepingSink) -> None:
    training = Training(sink)
    registry.remember(training.model, training.monitor)
    optimizers = {parameter: torch.optim.SGD([parameter], lr=0.01) for parameter in training.model.parameters()}

    def step(parameter: Tensor) -> None:
        clip_grad_norm_([parameter], 0.1)
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in training.model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    for _ in range(STEPS):
        training.backward()
    assert training.found == []


def test_the_drop_ins_are_examined_too(own_directory: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(torch.randn(3, 4)).sum().backward()
        optimizer.step()
        clip_grad_norm_(model.parameters(), 1.0)
    assert capsys.readouterr().err.count(f"gradwatch: {Finding.AFTER_STEP.value}: ") == 1
    owner = registry.owner_of(model.weight)
    assert owner is not None
    owner.finish()


def test_a_layer_frozen_meanwhile_hides_nothing(sink: KeepingSink) -> None:
    training = Training(sink)
    for _ in range(3):
        ordinary(training)
    training.model[4].requires_grad_(False)
    training.model.zero_grad()
    for _ in range(5):
        clip_every_micro_batch(training)
    assert training.found == [Finding.MICRO_BATCH.value]


# Right, however odd.


def ordinary(training: Training) -> None:
    training.optimizer.zero_grad()
    training.monitor.clip(training.backward())
    training.optimizer.step()


def zeroed_in_place(training: Training) -> None:
    training.optimizer.zero_grad(set_to_none=False)
    training.monitor.clip(training.backward())
    training.optimizer.step()


def zeroed_at_the_end(training: Training) -> None:
    training.monitor.clip(training.backward())
    training.optimizer.step()
    training.optimizer.zero_grad()


def never_zeroed(training: Training) -> None:  # momentum by hand, or a mistake, but none of the clip's
    training.monitor.clip(training.backward())
    training.optimizer.step()


def accumulated(training: Training) -> None:
    for _ in range(4):
        loss = training.backward()
    training.monitor.clip(loss)
    training.optimizer.step()
    training.optimizer.zero_grad()


def lbfgs_or_lightning_closure(training: Training) -> None:
    def closure() -> Tensor:
        training.optimizer.zero_grad()
        loss = training.backward()
        training.monitor.clip(loss)
        return loss

    training.optimizer.step(closure)


def noise_after_the_clip(training: Training) -> None:
    ordinary_until_step(training)
    for parameter in training.model.parameters():
        assert parameter.grad is not None
        parameter.grad.add_(torch.randn_like(parameter.grad), alpha=0.01)
    training.optimizer.step()


def new_gradients_after_the_clip(training: Training) -> None:
    ordinary_until_step(training)
    for parameter in training.model.parameters():
        assert parameter.grad is not None
        parameter.grad = parameter.grad / 2
    training.optimizer.step()


def averaged_before_the_clip(training: Training) -> None:  # as an all-reduce by hand does it
    training.optimizer.zero_grad()
    training.backward()
    for parameter in training.model.parameters():
        assert parameter.grad is not None
        parameter.grad.div_(2)
    training.monitor.clip()
    training.optimizer.step()


def ordinary_until_step(training: Training) -> None:
    training.optimizer.zero_grad()
    training.monitor.clip(training.backward())


def step_left_out_at_times(training: Training) -> None:
    for skipped in (True, True, False):
        ordinary_until_step(training)
        if not skipped:
            training.optimizer.step()


def value_then_norm(training: Training) -> None:
    training.optimizer.zero_grad()
    training.backward()
    clip_grad_value_(training.model.parameters(), 0.1)
    clip_grad_norm_(training.model.parameters(), 0.5)
    training.optimizer.step()


def two_halves_apart(training: Training) -> None:
    training.optimizer.zero_grad()
    training.backward()
    clip_grad_norm_(training.model[:3].parameters(), 0.5)
    clip_grad_norm_(training.model[3:].parameters(), 0.1)
    training.optimizer.step()


def the_rest_by_torch(training: Training) -> None:
    training.optimizer.zero_grad()
    training.backward()
    clip_grad_norm_(training.model[:3].parameters(), 0.5)
    torch.nn.utils.clip_grad_norm_(training.model[3:].parameters(), 0.1)
    training.optimizer.step()


def every_other_step_unclipped(training: Training) -> None:
    ordinary(training)
    training.optimizer.zero_grad()
    training.backward()
    training.optimizer.step()


def penalty_by_autograd_grad(training: Training) -> None:
    training.optimizer.zero_grad()
    loss = training.loss()
    parts = torch.autograd.grad(loss, list(training.model.parameters()), create_graph=True)
    total = loss + torch.stack([part.square().sum() for part in parts]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    training.monitor.clip(total)
    torch.autograd.grad(training.loss(), list(training.model.parameters()))
    training.optimizer.step()


def gradients_without_autograd(training: Training) -> None:  # master weights, evolution: nothing there can be seen
    for parameter in training.model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.data.copy_(torch.randn_like(parameter))
    training.monitor.clip()
    training.optimizer.step()


def gradients_out_of_sight(training: Training) -> None:  # odd, and not understood, so nothing is said
    training.optimizer.zero_grad()
    training.backward()
    put_away = [parameter.grad for parameter in training.model.parameters()]
    for parameter in training.model.parameters():
        parameter.grad = None
    training.monitor.clip()
    for parameter, gradient in zip(training.model.parameters(), put_away, strict=True):
        parameter.grad = gradient
    training.optimizer.step()


RIGHT = [
    ordinary, zeroed_in_place, zeroed_at_the_end, never_zeroed, accumulated, lbfgs_or_lightning_closure,
    noise_after_the_clip, new_gradients_after_the_clip, averaged_before_the_clip, step_left_out_at_times,
    value_then_norm, two_halves_apart, the_rest_by_torch, every_other_step_unclipped, penalty_by_autograd_grad,
    gradients_without_autograd, gradients_out_of_sight,
]  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer_type", "options"),
    [(torch.optim.SGD, {}), (torch.optim.AdamW, {"fused": True})],
    ids=["SGD", "fused AdamW"],
)
@pytest.mark.parametrize("loop", RIGHT, ids=[loop.__name__ for loop in RIGHT])
def test_a_right_wiring_is_left_alone(
    loop: Loop, optimizer_type: Any, options: dict[str, Any], sink: KeepingSink
) -> None:
    training = Training(sink, optimizer_type, **options)
    registry.remember(training.model, training.monitor)
    for _ in range(STEPS):
        loop(training)
    assert training.found == []


def test_lbfgs_with_its_many_closures_is_left_alone(sink: KeepingSink) -> None:
    training = Training(sink, torch.optim.LBFGS, max_iter=5)
    for _ in range(STEPS):
        lbfgs_or_lightning_closure(training)
    assert training.found == []


def test_a_learning_rate_schedule_and_freezing_change_nothing(sink: KeepingSink) -> None:
    training = Training(sink)
    schedule = torch.optim.lr_scheduler.LambdaLR(training.optimizer, lambda step: 0.9**step)
    for step in range(STEPS):
        if step % 5 == 0:  # freeze one layer, with whatever gradient it has left, and thaw the others
            for place, parameter in enumerate(training.model.parameters()):
                parameter.requires_grad_(place % 5 != step % 4)
        ordinary(training)
        schedule.step()
    assert training.found == []


def test_parameters_that_are_used_at_times_only_change_nothing(sink: KeepingSink) -> None:
    training = Training(sink)
    layers = list(training.model.children())
    for step in range(STEPS):
        training.optimizer.zero_grad()
        inputs = torch.randn(8, 4)
        part = layers if step % 3 else layers[:3]
        loss = nn.Sequential(*part)(inputs).square().mean()
        loss.backward()
        training.monitor.clip(loss)
        training.optimizer.step()
    assert training.found == []


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("way", ["unscale_", "scaler="])
def test_a_scaler_used_right_is_left_alone_also_where_steps_overflow(fused: bool, way: str, sink: KeepingSink) -> None:
    training = Training(sink, torch.optim.AdamW, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for step in range(STEPS):
        training.optimizer.zero_grad()
        loss = training.loss() * (float("inf") if step % 4 == 1 else 1.0)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if way == "unscale_":
            scaler.unscale_(training.optimizer)
        training.monitor.clip(loss, scaler=scaler if way == "scaler=" else None)
        for parameter in training.model.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(0.99)
        scaler.step(training.optimizer)
        scaler.update()
    assert training.found == []


def test_a_scaler_that_is_switched_off_is_left_alone(sink: KeepingSink) -> None:
    training = Training(sink)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for _ in range(STEPS):
        ordinary_until_step(training)
        scaler.step(training.optimizer)
        scaler.update()
    assert training.found == []


def test_steps_that_the_hook_leaves_out_are_left_alone(sink: KeepingSink) -> None:
    training = Training(sink)
    training.monitor.nonfinite = "skip"
    for step in range(STEPS):
        training.optimizer.zero_grad()
        loss = training.loss() * (float("nan") if step % 3 == 0 else 1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        training.monitor.clip(loss)
        training.optimizer.step()
    assert training.found == []


class Adversaries:
    """A generator and a discriminator under one monitor, each with its optimizer."""

    def __init__(self, sink: KeepingSink) -> None:
        torch.manual_seed(0)
        self.generator, self.discriminator = nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
        self.models = nn.ModuleList([self.discriminator, self.generator])
        self.of_generator = torch.optim.Adam(self.generator.parameters())
        self.of_discriminator = torch.optim.Adam(self.discriminator.parameters())
        self.monitor = monitor_of(self.models, [self.of_discriminator, self.of_generator], GlobalNorm(0.1), sink)
        self.monitor.watch_wiring()

    def play(self, clip: Callable[[torch.optim.Optimizer], Any], turns: int, *, frozen: bool, late: bool) -> None:
        for _ in range(turns):
            for _ in range(5):
                self._turn(self.of_discriminator, clip, detach=True, late=late)
            self.discriminator.requires_grad_(not frozen)
            self._turn(self.of_generator, clip, detach=False, late=late)
            self.discriminator.requires_grad_(True)

    def _turn(self, optimizer: Any, clip: Callable[[torch.optim.Optimizer], Any], *, detach: bool, late: bool) -> None:
        if not late:
            optimizer.zero_grad()
        made = self.generator(torch.randn(6, 3))
        self.discriminator(made.detach() if detach else made).mean().backward()
        clip(optimizer)
        optimizer.step()
        if late:
            self.of_discriminator.zero_grad()
            self.of_generator.zero_grad()


@pytest.mark.parametrize("late", [False, True], ids=["zeroed before", "all zeroed after"])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("how", ["apart", "together", "discriminator only", "discriminator's turns"])
def test_adversaries_are_left_alone(how: str, frozen: bool, late: bool, sink: KeepingSink) -> None:
    game = Adversaries(sink)

    def clip(optimizer: torch.optim.Optimizer) -> None:
        if how == "apart" or (how == "discriminator only" and optimizer is game.of_discriminator):
            game.monitor.clip(optimizer=optimizer)
        elif how == "together" or (how == "discriminator's turns" and optimizer is game.of_discriminator):
            game.monitor.clip()

    game.play(clip, 10, frozen=frozen, late=late)
    assert [event for event in sink.events if event[1] == "wiring"] == []


def test_a_slip_that_does_not_come_back_is_no_finding(sink: KeepingSink) -> None:
    training = Training(sink)
    for slip in (clip_twice, clip_every_micro_batch, zero_before_the_clip, clip_at_the_first_micro_batch):
        ordinary(training)
        training.optimizer.zero_grad()
        slip(training)
    assert training.found == []


def test_two_optimizers_clipped_at_once_and_stepped_one_after_the_other_are_left_alone(sink: KeepingSink) -> None:
    training = Training(sink)
    halves = [torch.optim.SGD(training.model[:3].parameters(), 0.1), torch.optim.Adam(training.model[3:].parameters())]
    for _ in range(STEPS):
        training.model.zero_grad()
        training.monitor.clip(training.backward())
        for half in halves:
            half.step()
    assert training.found == []


def test_an_optimizer_around_another_is_judged_once(sink: KeepingSink) -> None:
    """As sharpness-aware minimisation does it: the gradient that is clipped is the second one."""
    training = Training(sink)

    class Sharpness(torch.optim.Optimizer):
        def __init__(self) -> None:
            super().__init__(training.model.parameters(), {})

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            training.optimizer.zero_grad()
            closure()
            training.optimizer.step()

    outer = Sharpness()
    for _ in range(STEPS):
        training.optimizer.zero_grad()
        training.backward()
        outer.step(lambda: training.monitor.clip(training.backward()))
    assert training.found == []


def test_other_models_optimizers_are_not_looked_at(sink: KeepingSink) -> None:
    training = Training(sink)
    other = nn.Linear(2, 2)
    others = torch.optim.SGD(other.parameters(), lr=0.1)
    for _ in range(STEPS):
        other(torch.ones(1, 2)).sum().backward()
        others.step()
    assert training.found == []
    assert other.weight._post_accumulate_grad_hooks is None


def test_parameters_of_another_monitor_are_no_subset(own_directory: Any, capsys: pytest.CaptureFixture[str]) -> None:
    models = [nn.Linear(3, 3), nn.Linear(3, 3)]
    optimizer = torch.optim.SGD([parameter for model in models for parameter in model.parameters()], lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        models[1](models[0](torch.randn(2, 3))).sum().backward()
        for model in models:
            clip_grad_norm_(model.parameters(), 1e9)
        optimizer.step()
    assert "subset" not in capsys.readouterr().err
    for model in models:
        owner = registry.owner_of(model.weight)
        assert owner is not None
        owner.finish()


# Nothing stays, nothing breaks.


def no_hooks_on(model: nn.Module) -> bool:
    return not any(getattr(parameter, "_post_accumulate_grad_hooks", None) for parameter in model.parameters())


@pytest.mark.parametrize("loop", [ordinary, clip_after_the_step, clip_every_micro_batch, clip_twice])
def test_after_the_first_steps_nothing_is_left(loop: Loop, sink: KeepingSink) -> None:
    training = Training(sink)
    for _ in range(20):
        loop(training)
    wiring = training.monitor._wiring
    assert wiring is not None and not wiring.active
    assert no_hooks_on(training.model)
    assert not torch_optimizer._global_optimizer_pre_hooks and not torch_optimizer._global_optimizer_post_hooks


def test_a_closed_check_holds_nothing(sink: KeepingSink) -> None:
    training = Training(sink)
    wiring = Wiring(lambda parameter: True, lambda finding, text: None)
    parameters = list(training.model.parameters())
    for _ in range(3):
        training.optimizer.zero_grad()
        training.backward()
        wiring.clip_begins(parameters, None)
        wiring.clip_ends()
        training.optimizer.step()
    gone = [weakref.ref(parameter) for parameter in parameters]
    wiring.close()
    wiring.close()
    del training, parameters
    gc.collect()
    assert [reference() for reference in gone] == [None] * len(gone) and not wiring.active


def test_after_steps_without_a_clip_nothing_is_looked_at_until_the_first(sink: KeepingSink) -> None:
    training = Training(sink)
    for _ in range(STEPS):
        never_clip(training)
    assert not step_hooks._observing
    for _ in range(STEPS):
        clip_after_the_step(training)
    assert training.found == [Finding.NEVER.value, Finding.AFTER_STEP.value]


def test_a_finished_monitor_looks_no_more(sink: KeepingSink) -> None:
    training = Training(sink)
    ordinary(training)
    assert not no_hooks_on(training.model) and torch_optimizer._global_optimizer_pre_hooks
    training.monitor.finish()
    assert no_hooks_on(training.model) and not torch_optimizer._global_optimizer_pre_hooks
    for _ in range(STEPS):
        clip_after_the_step(training)
    assert training.found == []


def test_a_forgotten_model_takes_everything_along(sink: KeepingSink) -> None:
    training = Training(sink)
    ordinary(training)
    gone = [weakref.ref(training.monitor), weakref.ref(training.model), weakref.ref(training.model[0].weight)]
    gc.collect()
    gc.disable()  # nothing of ours may hold them in a circle
    try:
        del training.model, training.optimizer, training.monitor
        assert gone[0]() is None
    finally:
        gc.enable()
    gc.collect()
    assert [reference() for reference in gone] == [None, None, None]


def test_watched_models_and_monitors_are_copied_and_saved_as_before(sink: KeepingSink) -> None:
    training = Training(sink)
    ordinary(training)
    for copied in (copy.deepcopy(training.model), nn.Sequential(*training.model)):
        copied.load_state_dict(training.model.state_dict())
    twin = copy.deepcopy(training.model)
    assert no_hooks_on(twin) and not no_hooks_on(training.model)
    torch.save(training.model, io.BytesIO())
    silent = copy.deepcopy(training.monitor)
    assert isinstance(silent, Monitor) and silent._wiring is None
    silent.clip()


def test_gradients_and_weights_stay_bit_identical(sink: KeepingSink) -> None:
    watched, plain = Training(sink, torch.optim.AdamW), Training(KeepingSink(), torch.optim.AdamW)
    assert plain.monitor._wiring is not None
    plain.monitor._wiring.close()
    for training in (watched, plain):
        torch.manual_seed(3)
        for _ in range(STEPS):
            accumulated(training)
    for ours, theirs in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_failure_of_the_check_never_reaches_the_training(sink: KeepingSink) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("broken")

    for owns, tell in ((broken, broken), (lambda parameter: True, broken)):
        training = Training(sink)
        assert training.monitor._wiring is not None
        training.monitor._wiring.close()
        training.monitor._wiring = Wiring(owns, tell)
        training.monitor._wiring.watching()
        for _ in range(STEPS):
            clip_after_the_step(training)
        assert not training.monitor._wiring.active and no_hooks_on(training.model)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step_still_compiles_and_is_not_compiled_again(sink: KeepingSink) -> None:
    training = Training(sink)
    counter = import_module("torch._dynamo.testing").CompileCounter()
    step = torch.compile(training.optimizer.step, backend=counter)
    before = -1
    for number in range(STEPS):
        ordinary_until_step(training)
        step()  # type: ignore[no-untyped-call]
        before = counter.frame_count if number == 1 else before
    assert training.monitor._wiring is not None
    training.monitor.finish()
    ordinary_until_step(training)
    step()  # type: ignore[no-untyped-call]
    assert counter.frame_count == before > 0 and training.found == []
    import_module("torch._dynamo").reset()


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_is_followed_without_being_compiled_again(sink: KeepingSink) -> None:
    training = Training(sink)
    counter = import_module("torch._dynamo.testing").CompileCounterWithBackend("aot_eager")
    forward = torch.compile(training.model, backend=counter, fullgraph=True)
    inputs = torch.randn(8, 4)
    for _ in range(STEPS):
        training.optimizer.zero_grad()
        forward(inputs).square().mean().backward()  # type: ignore[no-untyped-call]
        training.optimizer.step()
        training.monitor.clip()
    assert counter.frame_count == 1 and training.found == [Finding.AFTER_STEP.value]
    import_module("torch._dynamo").reset()
