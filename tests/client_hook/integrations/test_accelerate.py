"""A real Accelerator's loop against the plain loop: the call that clips, accumulation, scaling, several models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradwatch
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from gradwatch.integrations.accelerate import watch_accelerator
from torch import Tensor, nn

from tests.client_hook.integrations.plain import (
    ACCUMULATE,
    MAX_NORM,
    STEPS,
    Trained,
    accumulated,
    clip_by_norm,
    clip_nothing,
    micro_batches,
    new_model,
    new_optimizer,
    note_step,
    train_plainly,
)
from tests.client_hook.integrations.recorded import Recorded, assert_equal_parameters, assert_same, recorded, steps_in


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    """Accelerate keeps its settings in process-wide singletons."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATE)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Loop:
    """A user's loop as Accelerate's documentation has it."""

    def __init__(self, accelerator: Accelerator, **optimizer_options: Any) -> None:
        self.accelerator = accelerator
        model = new_model()
        self.model, self.optimizer = accelerator.prepare(model, new_optimizer(model, **optimizer_options))

    def run(self, *, max_norm: float = MAX_NORM, guarded: bool = True, steps: int = STEPS) -> list[Tensor]:
        """The norms that ``clip_grad_norm_`` returned."""
        norms = []
        for x, labels in micro_batches(steps * ACCUMULATE):
            with self.accelerator.accumulate(self.model):
                self.accelerator.backward(self.model(x, labels)["loss"])
                if self.accelerator.sync_gradients or not guarded:
                    norms.append(self.accelerator.clip_grad_norm_(self.model.parameters(), max_norm))
                self.optimizer.step()
                self.optimizer.zero_grad()
        return norms


def only(directory: Path) -> Recorded:
    (run,) = recorded(directory)
    return run


@pytest.mark.parametrize("clip", ["call", MAX_NORM])
def test_fifty_accumulated_steps_are_those_of_the_plain_loop(
    own_directory: Path, accelerator: Accelerator, clip: Any
) -> None:
    loop = Loop(accelerator)
    with watch_accelerator(accelerator, loop.model, loop.optimizer, clip=clip, total_steps=STEPS):
        norms = loop.run()
    plain = train_plainly()
    run = only(own_directory)
    assert_same(run, plain)
    assert_equal_parameters(loop.model, plain)
    np.testing.assert_allclose([norm.item() for norm in norms], plain.total, rtol=1e-6)
    assert set(run.columns["threshold"].tolist()) == {MAX_NORM}
    assert (run.hello["clip"]["strategy"], run.hello["clip"]["max_norm"]) == ("GlobalNorm", MAX_NORM)
    assert (run.finish["state"], run.columns["learning_rate"][0]) == ("finished", 0.01)


def test_a_threshold_that_changes_from_call_to_call_is_followed(own_directory: Path, accelerator: Accelerator) -> None:
    loop = Loop(accelerator)
    with watch_accelerator(accelerator, loop.model, loop.optimizer):
        loop.run(max_norm=0.5, steps=3)
        loop.run(max_norm=2.5, steps=2)
    assert only(own_directory).columns["threshold"].tolist() == [0.5] * 3 + [2.5] * 2


def test_a_threshold_set_since_stays_until_a_call_says_another(own_directory: Path, accelerator: Accelerator) -> None:
    loop = Loop(accelerator)
    with watch_accelerator(accelerator, loop.model, loop.optimizer) as monitor:
        loop.run(max_norm=0.5, steps=2)
        monitor.threshold = 0.125  # as set_threshold does
        loop.run(max_norm=0.5, steps=2)
        loop.run(max_norm=2.5, steps=1)
    assert only(own_directory).columns["threshold"].tolist() == [0.5] * 2 + [0.125] * 2 + [2.5]


def test_a_call_on_half_of_the_micro_batches_waits_for_the_others(
    own_directory: Path, accelerator: Accelerator, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = Loop(accelerator)
    with watch_accelerator(accelerator, loop.model, loop.optimizer):
        norms = loop.run(guarded=False)
    plain = train_plainly()
    assert_same(only(own_directory), plain)
    assert_equal_parameters(loop.model, plain)
    assert len(norms) == STEPS * ACCUMULATE and all(torch.isfinite(norm) for norm in norms)
    assert capsys.readouterr().err.count("waits until the gradients of all micro-batches are there") == 1


def test_the_explicit_call_does_it_too(own_directory: Path, accelerator: Accelerator) -> None:
    loop = Loop(accelerator)
    with watch_accelerator(accelerator, loop.model, loop.optimizer, clip=MAX_NORM) as monitor:
        for x, labels in micro_batches():
            with accelerator.accumulate(loop.model):
                loss = loop.model(x, labels)["loss"]
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    monitor.clip(loss, scaler=accelerator.scaler)
                loop.optimizer.step()
                loop.optimizer.zero_grad()
    plain = train_plainly()
    np.testing.assert_allclose(only(own_directory).columns["grad_norm"], plain.layers, rtol=1e-6)
    assert_equal_parameters(loop.model, plain)


def test_clip_none_measures_and_the_call_clips(own_directory: Path, accelerator: Accelerator) -> None:
    loop = Loop(accelerator)
    with watch_accelerator(accelerator, loop.model, loop.optimizer, clip=None):
        loop.run()
    plain = train_plainly()
    assert_same(only(own_directory), plain, threshold=float("inf"))
    assert_equal_parameters(loop.model, plain)


def test_a_strategy_takes_the_calls_place_and_says_so(
    own_directory: Path, accelerator: Accelerator, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = Loop(accelerator)
    with watch_accelerator(accelerator, loop.model, loop.optimizer, clip=gradwatch.Value(0.2)):
        loop.run()
    assert_equal_parameters(loop.model, train_plainly(lambda p: torch.nn.utils.clip_grad_value_(p, 0.2)))
    assert capsys.readouterr().err.count(f"max_norm={MAX_NORM} is not used") == 1


def test_clipping_by_value_is_recorded_when_that_was_said(own_directory: Path, accelerator: Accelerator) -> None:
    loop = Loop(accelerator)
    accelerator_calls: Any = accelerator
    with watch_accelerator(accelerator, loop.model, loop.optimizer, clip=gradwatch.Value(0.2)):
        accelerator_calls.clip_grad_norm_ = lambda parameters, _: accelerator.clip_grad_value_(parameters, 0.2)
        loop.run()
    assert_equal_parameters(loop.model, train_plainly(lambda p: torch.nn.utils.clip_grad_value_(p, 0.2)))
    assert len(only(own_directory).steps) == STEPS


def train_scaled(fused: bool) -> tuple[Trained, list[float]]:
    model = new_model()
    optimizer = new_optimizer(model, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=10)
    trained, scales = Trained(model), []
    for group in accumulated(micro_batches()):
        loss = torch.zeros(())
        for x, labels in group:
            part = model(x, labels)["loss"] / ACCUMULATE
            scaler.scale(part).backward()
            loss += part.detach()
        scaler.unscale_(optimizer)
        scales.append(scaler.get_scale())
        note_step(trained, loss)
        clip_by_norm(list(model.parameters()))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    return trained, scales


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clip", [MAX_NORM, None])
def test_gradients_are_unscaled_once(own_directory: Path, accelerator: Accelerator, fused: bool, clip: Any) -> None:
    """Accelerate makes a GradScaler on other devices than the CPU only, so it is given one here, and half precision."""
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=10)
    loop = Loop(accelerator, fused=fused)
    accelerator.native_amp = True
    accelerator.state._mixed_precision = "fp16"
    with watch_accelerator(accelerator, loop.model, loop.optimizer, clip=clip):
        loop.run()
    plain, scales = train_scaled(fused)
    run = only(own_directory)
    assert_same(run, plain, threshold=MAX_NORM if clip else float("inf"), rtol=1e-4 if fused else 1e-6)
    assert_equal_parameters(loop.model, plain, tolerance=1e-5 if fused else 0)
    assert run.columns["loss_scale"].tolist() == scales and len(set(scales)) > 2


def test_a_fused_optimizer_is_clipped_too(own_directory: Path, accelerator: Accelerator) -> None:
    """Which gradwatch may do within the step itself."""
    loop = Loop(accelerator, fused=True)
    with watch_accelerator(accelerator, loop.model, loop.optimizer):
        loop.run()
    plain = train_plainly(fused=True)
    assert_same(only(own_directory), plain, rtol=1e-4)
    assert_equal_parameters(loop.model, plain, tolerance=1e-5)


def test_two_models_have_a_run_each(own_directory: Path, accelerator: Accelerator) -> None:
    one, other = Loop(accelerator), Loop(accelerator)
    with (
        watch_accelerator(accelerator, one.model, one.optimizer, name="one"),
        watch_accelerator(accelerator, other.model, other.optimizer, name="other"),
    ):
        one.run(steps=3)
        other.run(steps=5)
    assert {run.hello["name"]: len(run.steps) for run in recorded(own_directory)} == {"one": 3, "other": 5}


def test_one_of_two_optimizers_is_clipped_on_its_own(own_directory: Path, accelerator: Accelerator) -> None:
    accelerator.gradient_accumulation_steps = 1
    model = nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])
    model, *optimizers = accelerator.prepare(model, *[torch.optim.SGD(part.parameters(), lr=0.1) for part in model])
    with watch_accelerator(accelerator, model, optimizers):
        for part in model:
            accelerator.backward(model[0](torch.ones(1, 3)).sum() + model[1](torch.ones(1, 3)).sum())
            accelerator.clip_grad_norm_(part.parameters(), 1.0)
    absent = np.unpackbits(only(own_directory).columns["absent"], axis=1, bitorder="little")[:, :4]
    assert absent.tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]


def test_what_nobody_watches_is_clipped_unrecorded(
    own_directory: Path, accelerator: Accelerator, capsys: pytest.CaptureFixture[str]
) -> None:
    watched, bare = Loop(accelerator), Loop(accelerator)
    with watch_accelerator(accelerator, watched.model, watched.optimizer):
        bare.run()
    assert_equal_parameters(bare.model, train_plainly())
    assert steps_in(own_directory) == 0
    assert capsys.readouterr().err.count("parameters of no watched model") == 1


@pytest.mark.parametrize(
    ("call", "plainly"),
    [
        (lambda a, p: a.clip_grad_norm_(p, MAX_NORM, norm_type=1), lambda p: nn.utils.clip_grad_norm_(p, MAX_NORM, 1)),
        (lambda a, p: a.clip_grad_value_(p, 0.2), lambda p: nn.utils.clip_grad_value_(p, 0.2)),
    ],
)
def test_a_call_that_cannot_be_followed_still_clips_and_says_what_to_write(
    own_directory: Path, accelerator: Accelerator, capsys: pytest.CaptureFixture[str], call: Any, plainly: Any
) -> None:
    loop = Loop(accelerator)
    with watch_accelerator(accelerator, loop.model, loop.optimizer):
        for x, labels in micro_batches():
            with accelerator.accumulate(loop.model):
                accelerator.backward(loop.model(x, labels)["loss"])
                if accelerator.sync_gradients:
                    call(accelerator, list(loop.model.parameters()))
                loop.optimizer.step()
                loop.optimizer.zero_grad()
    assert_equal_parameters(loop.model, train_plainly(plainly))
    assert steps_in(own_directory) == 0
    assert "clip=gradwatch." in capsys.readouterr().err


def test_watching_again_replaces_the_earlier_run(own_directory: Path, accelerator: Accelerator) -> None:
    loop = Loop(accelerator)
    for steps in (2, 3):  # a notebook cell run twice
        monitor = watch_accelerator(accelerator, loop.model, loop.optimizer)
        loop.run(steps=steps)
    monitor.finish()
    assert sorted(len(run.steps) for run in recorded(own_directory)) == [2, 3]


def test_the_monitor_goes_into_accelerates_checkpoints(
    own_directory: Path, accelerator: Accelerator, tmp_path: Path
) -> None:
    loop = Loop(accelerator)
    monitor = watch_accelerator(accelerator, loop.model, loop.optimizer)
    accelerator.register_for_checkpointing(monitor)
    loop.run(steps=4)
    accelerator.save_state(str(tmp_path / "state"))
    monitor.finish()
    monitor = watch_accelerator(accelerator, loop.model, loop.optimizer)
    accelerator._custom_objects = [monitor]  # as in a new process
    accelerator.load_state(str(tmp_path / "state"))
    loop.run(steps=2)
    monitor.finish()
    assert recorded(own_directory)[1].steps == [4, 5]


def test_wrong_arguments_are_refused(accelerator: Accelerator) -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(TypeError, match="a strategy, None or \"call\", not '1.0'"):
        watch_accelerator(accelerator, model, clip="1.0")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'treshold'"):
        watch_accelerator(accelerator, model, treshold=1)


@pytest.mark.parametrize(("kind", "version"), [("DEEPSPEED", 0), ("FSDP", 1), ("MEGATRON_LM", 0), ("XLA", 0)])
def test_where_gradients_are_out_of_sight_it_is_refused(accelerator: Accelerator, kind: str, version: int) -> None:
    accelerator.state.distributed_type = type(accelerator.distributed_type)(kind)
    accelerator.state.fsdp_plugin = SimpleNamespace(fsdp_version=version)
    with pytest.raises(TypeError, match=f"under {kind}: use DDP or, .* FSDP 2"):
        watch_accelerator(accelerator, nn.Linear(1, 1))


def test_without_clipping_nothing_is_changed_by_being_watched(accelerator: Accelerator) -> None:
    loop = Loop(accelerator)
    with watch_accelerator(accelerator, loop.model, loop.optimizer):
        loop.run(max_norm=float("inf"))
    assert_equal_parameters(loop.model, train_plainly(clip_nothing))
