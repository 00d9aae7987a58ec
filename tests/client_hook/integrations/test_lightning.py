"""Lightning's real Trainer against the plain loop: norms, parameters, resumption, ends, and what stands in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradwatch
import numpy as np
import pytest
import torch
from gradwatch.integrations.lightning import GradwatchCallback
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader

from tests.client_hook.integrations.commanded import command, ended
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
from tests.server.served import Served

pytestmark = [
    # Lightning 2.6 beside torch 2.13.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
    # On machines with more cores or a GPU: advice that a test of a few milliseconds does not need.
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:GPU available but not used:UserWarning"),
]


class Module(LightningModule):
    def __init__(self, **optimizer_options: Any) -> None:
        super().__init__()
        self.save_hyperparameters({"width": 12, "api_key": "hunter2"})
        self.net = new_model()
        self.optimizer_options = optimizer_options

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.net(*batch)["loss"]

    def configure_optimizers(self) -> Any:
        return new_optimizer(self, **self.optimizer_options)


def loader(count: int = STEPS * ACCUMULATE) -> Any:
    batches: Any = micro_batches(count)
    return DataLoader(batches, batch_size=None)


def fit(module: LightningModule, callback: Callback | None = None, *, batches: Any = None, **options: Any) -> Trainer:
    settings: dict[str, Any] = {
        "max_epochs": 1,
        "accumulate_grad_batches": ACCUMULATE,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    resume = options.pop("ckpt_path", None)
    validation = options.pop("validation", None)
    callbacks = [*([callback] if callback else []), *options.pop("callbacks", [])]
    trainer = Trainer(callbacks=callbacks, **{**settings, **options})
    trainer.fit(module, loader() if batches is None else batches, validation, ckpt_path=resume)
    return trainer


def only(directory: Path) -> Recorded:
    (run,) = recorded(directory)
    return run


def test_fifty_accumulated_steps_are_those_of_the_plain_loop(own_directory: Path) -> None:
    module = Module()
    trainer = fit(module, GradwatchCallback(clip=MAX_NORM, name="lit"))
    plain = train_plainly()
    run = only(own_directory)
    assert_same(run, plain, prefix="net.")
    assert_equal_parameters(module.net, plain)
    assert (run.hello["name"], run.hello["total_steps"], run.hello["start_step"]) == ("lit", STEPS, 0)
    assert run.hello["config"] == {"width": 12, "api_key": "***"}
    assert run.finish["state"] == "finished"
    assert "clip_gradients" not in vars(trainer.precision_plugin)


@pytest.mark.parametrize(("algorithm", "value"), [("norm", MAX_NORM), ("value", 0.2)])
def test_the_trainers_own_threshold_is_taken_over(own_directory: Path, algorithm: str, value: float) -> None:
    functions: Any = {"norm": torch.nn.utils.clip_grad_norm_, "value": torch.nn.utils.clip_grad_value_}
    by = functions[algorithm]
    module = Module()
    fit(module, GradwatchCallback(), gradient_clip_val=value, gradient_clip_algorithm=algorithm)
    plain = train_plainly(lambda parameters: by(parameters, value))
    run = only(own_directory)
    np.testing.assert_allclose(run.columns["grad_norm"], plain.layers, rtol=1e-6)
    assert_equal_parameters(module.net, plain)
    assert run.hello["clip"]["strategy"] == {"norm": "GlobalNorm", "value": "Value"}[algorithm]
    assert set(run.columns["threshold"].tolist()) == {np.float32(value)}
    assert 0 < run.columns["clipped"].sum() < STEPS or algorithm == "value"


def test_without_any_threshold_it_measures(own_directory: Path) -> None:
    module = Module()
    fit(module, GradwatchCallback())
    plain = train_plainly(clip_nothing)
    assert_same(only(own_directory), plain, threshold=float("inf"), prefix="net.")
    assert_equal_parameters(module.net, plain)


def test_clip_none_leaves_the_clipping_to_the_trainer(own_directory: Path) -> None:
    module = Module()
    fit(module, GradwatchCallback(clip=None), gradient_clip_val=MAX_NORM)
    plain = train_plainly(clip_by_norm)
    assert_same(only(own_directory), plain, threshold=float("inf"), prefix="net.")
    assert_equal_parameters(module.net, plain)


def test_two_different_thresholds_are_refused_before_the_first_step() -> None:
    module = Module()
    before = [parameter.clone() for parameter in module.parameters()]
    with pytest.raises(ValueError, match=r"two thresholds: Trainer\(gradient_clip_val=0\.5\)"):
        fit(module, GradwatchCallback(clip=1.0), gradient_clip_val=0.5)
    assert all(torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True))


def test_unknown_arguments_are_refused_where_they_are_written() -> None:
    with pytest.raises(TypeError, match="'treshold'"):
        GradwatchCallback(clip=1.0, treshold=2)
    with pytest.raises(TypeError, match="optimizer: this is the integration's"):
        GradwatchCallback(clip=1.0, optimizer=None)


class SeesGradients(Callback):
    """What hooks before the clipping see: they must not see it clipped."""

    def __init__(self) -> None:
        self.total: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        gradients = [parameter.grad for parameter in pl_module.parameters()]
        self.total.append(float(torch.nn.utils.get_total_norm(gradients)))


def test_hooks_before_the_clipping_see_unclipped_gradients() -> None:
    sees = SeesGradients()
    trainer = Trainer(
        callbacks=[GradwatchCallback(clip=MAX_NORM), sees], max_epochs=1, accumulate_grad_batches=ACCUMULATE,
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), loader())
    np.testing.assert_allclose(sees.total, train_plainly().total, rtol=1e-6)


def train_in_half_precision(fused: bool) -> tuple[Trained, list[float]]:
    """The plain loop under autocast and a GradScaler, as torch's documentation has it; also the loss scales."""
    model = new_model()
    optimizer = new_optimizer(model, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=10)
    trained, scales = Trained(model), []
    for group in accumulated(micro_batches()):
        optimizer.zero_grad()
        loss = torch.zeros(())
        for x, labels in group:
            with torch.autocast("cpu", torch.float16, cache_enabled=False):
                part = model(x, labels)["loss"]
            scaler.scale(part / ACCUMULATE).backward()
            loss += part.detach() / ACCUMULATE
        scaler.unscale_(optimizer)
        scales.append(scaler.get_scale())
        note_step(trained, loss)
        clip_by_norm(list(model.parameters()))
        scaler.step(optimizer)
        scaler.update()
    return trained, scales


@pytest.mark.parametrize("fused", [False, True])
def test_under_a_grad_scaler_norms_and_losses_are_unscaled(own_directory: Path, fused: bool) -> None:
    """Fused, too, which Lightning's own clipping refuses."""
    module = Module(fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=10)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    fit(module, GradwatchCallback(clip=MAX_NORM), plugins=[plugin])
    plain, scales = train_in_half_precision(fused)
    run = only(own_directory)
    assert_same(run, plain, prefix="net.", rtol=1e-4 if fused else 1e-6)
    assert_equal_parameters(module.net, plain, tolerance=1e-5 if fused else 0)
    assert run.columns["loss_scale"].tolist() == scales and len(set(scales)) > 2


def test_a_fused_optimizer_is_clipped_too(own_directory: Path) -> None:
    """Which gradwatch may do within the step itself, and which Lightning runs around the backward pass."""
    module = Module(fused=True)
    fit(module, GradwatchCallback(clip=MAX_NORM))
    plain = train_plainly(fused=True)
    assert_same(only(own_directory), plain, prefix="net.", rtol=1e-4)
    assert_equal_parameters(module.net, plain, tolerance=1e-5)


class SkipsBatches(Module):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx in (2, 3, 7) else super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`:UserWarning")  # Lightning says it, and means it
@pytest.mark.parametrize("scaled", [False, True])
def test_batches_that_the_module_skips_are_handled_as_lightning_handles_them(own_directory: Path, scaled: bool) -> None:
    def plugins() -> Any:
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]} if scaled else {}

    module, bare = SkipsBatches(), SkipsBatches()
    fit(bare, batches=loader(20), gradient_clip_val=MAX_NORM, **plugins())
    fit(module, GradwatchCallback(), batches=loader(20), gradient_clip_val=MAX_NORM, **plugins())
    for one, other in zip(module.parameters(), bare.parameters(), strict=True):
        assert torch.equal(one, other)
    # Steps 1 and 3 end in a skipped batch; without a GradScaler the optimizer steps all the same.
    assert len(only(own_directory).steps) == (8 if scaled else 10)


def test_what_validation_logs_is_recorded_and_nothing_else(own_directory: Path) -> None:
    class Logs(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("while training", loss)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("held out", self.net(*batch)["loss"])

        def on_validation_epoch_end(self) -> None:
            self.log("loss", 0.25)

    fit(Logs(), GradwatchCallback(clip=1.0), validation=loader(2), max_epochs=2, batches=loader(10))
    run = only(own_directory)
    assert {name: sorted(values) for name, values in run.values.items()} == {
        "held out": [4, 9], "validation loss": [4, 9],
    }  # fmt: skip
    assert set(run.values["validation loss"].values()) == {0.25}


def test_a_training_that_raises_ends_as_failed(own_directory: Path) -> None:
    class Breaks(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 7:  # the loss of batch 6 has gone into no step
                raise RuntimeError("the disk is gone")
            return super().training_step(batch, batch_idx)

    callback = GradwatchCallback(clip=1.0)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        fit(Breaks(), callback)
    run = only(own_directory)
    assert (run.finish["state"], run.finish["reason"]) == ("failed", "RuntimeError: the disk is gone")
    assert run.steps == [0, 1, 2]
    fit(Module(), callback, batches=loader(4))  # and the callback is good for another training
    other = recorded(own_directory)[1]
    assert other.finish["state"] == "finished"
    np.testing.assert_allclose(other.columns["loss"], train_plainly(steps=2).loss, rtol=1e-6)


def test_a_resumed_training_goes_on_at_its_step_and_threshold(own_directory: Path, tmp_path: Path) -> None:
    first = GradwatchCallback(clip=1.0)
    trainer = fit(Module(), first, batches=loader(20))
    assert first.monitor is not None
    first.monitor.threshold = 0.5  # as someone turned it while training
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fit(Module(), GradwatchCallback(clip=1.0), batches=loader(20), max_epochs=2, ckpt_path=tmp_path / "last.ckpt")
    run = recorded(own_directory)[1]
    assert run.hello["start_step"] == 10 and run.steps == list(range(10, 20))
    assert set(run.columns["threshold"].tolist()) == {0.5}


def test_it_turns_the_threshold_and_stops_when_asked(tmp_path: Path) -> None:
    class Asks(Callback):
        def on_train_batch_end(self, trainer: Any, *given: Any) -> None:
            if trainer.global_step == 3 and callback.monitor is not None and callback.monitor.threshold == 1.0:
                command(server, callback.monitor, command="set_threshold", value=0.25)
                command(server, callback.monitor, command="stop")

    with Served(tmp_path / "server") as server:
        callback = GradwatchCallback(clip=1.0, control=True, server=server.url, mode="online")
        trainer = fit(Module(), callback, batches=loader(), callbacks=[Asks()], accumulate_grad_batches=1)
        assert trainer.global_step == 4
        assert ended(server) == ("stopped as asked", [1.0] * 3 + [0.25])


def test_another_clipping_than_the_checkpoints_is_said_and_taken(
    own_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = fit(Module(), GradwatchCallback(clip=1.0), batches=loader(20))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fit(Module(), GradwatchCallback(clip=2.0), batches=loader(20), max_epochs=2, ckpt_path=tmp_path / "last.ckpt")
    run = recorded(own_directory)[1]
    assert run.hello["start_step"] == 10 and set(run.columns["threshold"].tolist()) == {2.0}
    assert "'max_norm': 1.0" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")  # of the callback left out
def test_a_checkpoint_of_an_unwatched_training_is_gone_on_from(own_directory: Path, tmp_path: Path) -> None:
    fit(Module(), batches=loader(20)).save_checkpoint(tmp_path / "last.ckpt")
    fit(Module(), GradwatchCallback(clip=2.0), batches=loader(20), max_epochs=2, ckpt_path=tmp_path / "last.ckpt")
    assert only(own_directory).steps == list(range(10, 20))


class Adversaries(LightningModule):
    """Two optimizers, one parameter set each: manual optimization."""

    def __init__(self, by_hand: float | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.by_hand = by_hand
        torch.manual_seed(3)
        self.one = nn.Linear(6, 1)
        self.other = nn.Linear(6, 1)

    def losses(self, batch: Any) -> Any:
        x, labels = batch
        return [nn.functional.mse_loss(part(x).squeeze(-1), labels) for part in (self.one, self.other)]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizers: Any = self.optimizers()
        for place, optimizer in enumerate(optimizers):
            loss = self.losses(batch)[place]
            optimizer.zero_grad()
            self.manual_backward(loss)
            if self.by_hand:
                self.clip_gradients(optimizer, gradient_clip_val=self.by_hand, gradient_clip_algorithm="norm")
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.one, self.other)]


def train_adversaries(max_norm: float) -> tuple[Adversaries, list[float], list[float]]:
    module = Adversaries()
    totals, losses = [], []
    optimizers = module.configure_optimizers()
    for batch in micro_batches(10):
        for place, optimizer in enumerate(optimizers):
            optimizer.zero_grad()
            loss = module.losses(batch)[place]
            loss.backward()
            losses.append(loss.item())
            totals.append(torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_norm).item())
            optimizer.step()
    return module, totals, losses


@pytest.mark.parametrize("by_hand", [None, 0.5])
def test_in_manual_optimization_every_optimizers_step_is_a_step(
    own_directory: Path, by_hand: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    module = Adversaries(by_hand)
    fit(module, GradwatchCallback(clip=0.5), batches=loader(10), accumulate_grad_batches=1, max_steps=100)
    plain, totals, losses = train_adversaries(0.5)
    run = only(own_directory)
    assert run.steps == list(range(20)) and run.hello["total_steps"] == 100
    np.testing.assert_allclose(run.columns["total_norm"], totals, rtol=1e-6)
    np.testing.assert_allclose(run.columns["loss"], losses, rtol=1e-6)
    absent = np.unpackbits(run.columns["absent"], axis=1, bitorder="little")[:, :4]
    assert absent.tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]] * 10
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), plain.parameters(), strict=True))
    assert ("self.clip_gradients is left out" in capsys.readouterr().err) is (by_hand is not None)


def test_manual_clipping_without_a_threshold_here_stays_and_says_what_to_write(
    own_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = Adversaries(0.5)
    fit(module, GradwatchCallback(), batches=loader(10), accumulate_grad_batches=1)
    plain, _, _ = train_adversaries(0.5)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), plain.parameters(), strict=True))
    assert max(only(own_directory).columns["total_norm"]) < 0.501
    assert capsys.readouterr().err.count("write GradwatchCallback(clip=...)") == 1


def test_a_module_that_clips_past_lightning_is_told_so(own_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class ClipsItself(Module):
        def configure_gradient_clipping(self, optimizer: Any, *arguments: Any, **named: Any) -> None:
            torch.nn.utils.clip_grad_norm_(self.parameters(), MAX_NORM)

    module = ClipsItself()
    fit(module, GradwatchCallback(clip=1.0))
    assert_equal_parameters(module.net, train_plainly())
    assert steps_in(own_directory) == 0
    assert capsys.readouterr().err.count("must call self.clip_gradients(optimizer") == 1


def test_only_what_the_optimizer_steps_is_clipped_together(own_directory: Path) -> None:
    """As Lightning does it, and not over all parameters that happen to have a gradient."""

    class Half(Module):
        def configure_optimizers(self) -> Any:
            return new_optimizer(self.net.second)

    module, bare = Half(), Half()
    fit(module, GradwatchCallback(clip=MAX_NORM))
    fit(bare, gradient_clip_val=MAX_NORM)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), bare.parameters(), strict=True))


def test_a_strategy_with_hidden_gradients_is_refused() -> None:
    class FSDPStrategy:
        pass

    class Fitting:
        strategy = FSDPStrategy()

    with pytest.raises(TypeError, match="ModelParallelStrategy"):
        GradwatchCallback(clip=1.0).on_train_start(Fitting(), nn.Linear(1, 1))


def test_a_strategy_object_clips(own_directory: Path) -> None:
    module = Module()
    fit(module, GradwatchCallback(clip=gradwatch.Value(0.2)))
    plain = train_plainly(lambda parameters: torch.nn.utils.clip_grad_value_(parameters, 0.2))
    assert_equal_parameters(module.net, plain)
    assert only(own_directory).hello["clip"]["strategy"] == "Value"
