"""Transformers' real Trainer against the plain loop: norms, losses, parameters, resumption, evaluation, ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradwatch
import numpy as np
import pytest
import torch
from gradwatch.integrations.transformers import GradwatchCallback, watch_trainer
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from tests.client_hook.integrations.commanded import command, ended
from tests.client_hook.integrations.plain import (
    ACCUMULATE,
    MAX_NORM,
    STEPS,
    Regression,
    clip_nothing,
    micro_batches,
    new_model,
    new_optimizer,
    train_plainly,
)
from tests.client_hook.integrations.recorded import Recorded, assert_equal_parameters, assert_same, recorded, steps_in
from tests.server.served import Served


class Samples(IterableDataset[dict[str, Any]]):
    """The micro-batches sample by sample, in order, which the Trainer puts together again."""

    def __init__(self, count: int = STEPS * ACCUMULATE) -> None:
        self.count = count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for x, labels in micro_batches(self.count):
            for place in range(len(labels)):
                yield {"x": x[place], "labels": labels[place]}


def new_trainer(folder: Path, steps: int = STEPS, model: Regression | None = None, **arguments: Any) -> Trainer:
    model = new_model() if model is None else model
    kept = {name: arguments.pop(name) for name in ("eval_dataset", "callbacks") if name in arguments}
    optimizers: Any = (new_optimizer(model, fused=arguments.pop("fused", False)), None)
    said: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": ACCUMULATE,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 5,
        "max_grad_norm": MAX_NORM,
        **arguments,
    }
    return Trainer(model, TrainingArguments(**said), train_dataset=Samples(), optimizers=optimizers, **kept)


def only(directory: Path) -> Recorded:
    (run,) = recorded(directory)
    return run


def test_fifty_accumulated_steps_are_those_of_the_plain_loop(own_directory: Path, tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, run_name="the run")
    watch_trainer(trainer)
    trainer.train()
    plain = train_plainly()
    run = only(own_directory)
    assert_same(run, plain)
    assert_equal_parameters(trainer.model, plain)
    assert (run.hello["clip"]["strategy"], run.hello["clip"]["max_norm"]) == ("GlobalNorm", MAX_NORM)
    assert (run.hello["name"], run.hello["total_steps"]) == ("the run", STEPS)
    assert run.hello["config"]["max_grad_norm"] == MAX_NORM
    assert run.finish["state"] == "finished"
    assert run.values == {}  # loss, norm and rate are gradwatch's own; an average over five steps adds nothing
    logged = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    np.testing.assert_allclose(logged, plain.total[4::5], rtol=1e-6)
    assert not {"clip_grad_norm_", "backward"} & set(vars(trainer.accelerator))


def test_transformers_default_threshold_is_taken_over_like_any_other(own_directory: Path, tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, max_grad_norm=1.0)
    watch_trainer(trainer)
    trainer.train()
    assert set(only(own_directory).columns["threshold"].tolist()) == {1.0}
    assert_equal_parameters(trainer.model, train_plainly(lambda p: torch.nn.utils.clip_grad_norm_(p, 1.0)))


def test_an_argument_of_its_own_replaces_the_trainers_default(
    own_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = new_trainer(tmp_path, max_grad_norm=1.0)
    watch_trainer(trainer, clip=MAX_NORM)
    trainer.train()
    assert_same(only(own_directory), train_plainly())
    assert_equal_parameters(trainer.model, train_plainly())
    assert capsys.readouterr().err.count("max_norm=1.0 is not used") == 1


def test_a_fused_optimizer_is_clipped_too(own_directory: Path, tmp_path: Path) -> None:
    """Which gradwatch may do within the step itself."""
    trainer = new_trainer(tmp_path, fused=True)
    watch_trainer(trainer)
    trainer.train()
    plain = train_plainly(fused=True)
    assert_same(only(own_directory), plain, rtol=1e-4)
    assert_equal_parameters(trainer.model, plain, tolerance=1e-5)


def test_a_strategy_clips(own_directory: Path, tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, max_grad_norm=0)
    watch_trainer(trainer, clip=gradwatch.Value(0.2))
    trainer.train()
    assert_equal_parameters(trainer.model, train_plainly(lambda p: torch.nn.utils.clip_grad_value_(p, 0.2)))
    assert only(own_directory).hello["clip"]["strategy"] == "Value"


def test_two_different_thresholds_are_refused_before_the_first_step(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, max_grad_norm=0.5)
    watch_trainer(trainer, clip=MAX_NORM)
    with pytest.raises(ValueError, match=r"two thresholds: TrainingArguments\(max_grad_norm=0\.5\)"):
        trainer.train()
    assert_equal_parameters(trainer.model, train_plainly(steps=0))


def test_without_a_threshold_it_measures(own_directory: Path, tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, max_grad_norm=0)
    watch_trainer(trainer)
    trainer.train()
    plain = train_plainly(clip_nothing)
    assert_same(only(own_directory), plain, threshold=float("inf"))
    assert_equal_parameters(trainer.model, plain)


def test_clip_none_measures_and_the_trainer_clips(own_directory: Path, tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path)
    watch_trainer(trainer, clip=None)
    trainer.train()
    assert_same(only(own_directory), train_plainly(), threshold=float("inf"))
    assert_equal_parameters(trainer.model, train_plainly())


def test_a_trainer_that_never_calls_the_function_is_measured_before_its_step(
    own_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As versions before 5 do it with ``max_grad_norm=0``."""
    monkeypatch.setattr(Trainer, "_get_grad_norm", lambda self, model, grad_norm=None: grad_norm)
    trainer = new_trainer(tmp_path, max_grad_norm=0)
    watch_trainer(trainer, clip=MAX_NORM)
    trainer.train()
    assert_same(only(own_directory), train_plainly())
    assert_equal_parameters(trainer.model, train_plainly())


def test_a_trainer_that_clips_by_itself_is_told_so(
    own_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_itself = lambda self, model: torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)  # noqa: E731
    monkeypatch.setattr(Trainer, "_clip_grad_norm", by_itself)
    trainer = new_trainer(tmp_path)
    watch_trainer(trainer)
    trainer.train()
    assert_equal_parameters(trainer.model, train_plainly())
    assert steps_in(own_directory) == 0
    assert capsys.readouterr().err.count("clipped without accelerator.clip_grad_norm_") == 1


@pytest.mark.parametrize("again", [False, True], ids=["once", "watched twice"])
def test_a_training_that_raises_ends_as_failed(own_directory: Path, tmp_path: Path, again: bool) -> None:
    class Breaks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.global_step == 3:
                raise RuntimeError("the disk is gone")

    trainer = new_trainer(tmp_path, callbacks=[Breaks()])
    train = trainer.train
    for _ in range(1 + again):
        callback = watch_trainer(trainer)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        trainer.train()
    run = only(own_directory)
    assert (run.finish["state"], run.finish["reason"]) == ("failed", "RuntimeError: the disk is gone")
    assert run.steps == [0, 1, 2]
    assert [one for one in trainer.callback_handler.callbacks if isinstance(one, GradwatchCallback)] == [callback]
    trainer.remove_callback(Breaks)
    trainer.train()  # and the trainer is good for another training
    assert recorded(own_directory)[1].finish["state"] == "finished"
    callback.release()
    assert trainer.train == train


@pytest.mark.parametrize("path", [True, "checkpoint-6"])
def test_a_resumed_training_goes_on_at_its_step_and_threshold(own_directory: Path, tmp_path: Path, path: Any) -> None:
    class Turns(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            assert first.monitor is not None
            first.monitor.threshold = 0.75

    saving: Any = {"save_strategy": "steps", "save_steps": 6}
    trainer = new_trainer(tmp_path, steps=6, **saving)
    first = watch_trainer(trainer, clip=gradwatch.GlobalNorm(MAX_NORM))
    trainer.add_callback(Turns())
    trainer.train()
    resumed = new_trainer(tmp_path, steps=9, **saving)
    watch_trainer(resumed, clip=gradwatch.GlobalNorm(MAX_NORM))
    resumed.train(resume_from_checkpoint=path if path is True else str(tmp_path / path))
    before, after = recorded(own_directory)
    assert (5, "checkpoint", "step 6") in before.events
    assert after.hello["start_step"] == 6 and after.steps == [6, 7, 8]
    assert set(after.columns["threshold"].tolist()) == {0.75}


def test_it_saves_turns_the_threshold_and_stops_when_asked(tmp_path: Path) -> None:
    class Asks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            wanted: dict[int, dict[str, Any]] = {
                2: {"command": "checkpoint"},
                4: {"command": "set_threshold", "value": 0.25},
                6: {"command": "stop"},
            }
            if state.global_step in wanted:
                command(server, callback.monitor, **wanted[state.global_step])

    with Served(tmp_path / "server") as server:
        trainer = new_trainer(tmp_path)
        callback = watch_trainer(trainer, control=True, server=server.url, mode="online")
        trainer.add_callback(Asks())
        trainer.train()
        assert trainer.state.global_step == 7 < STEPS
        assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
        assert ended(server) == ("stopped as asked", [MAX_NORM] * 4 + [0.25] * 3)


def test_a_checkpoint_of_an_unwatched_training_is_gone_on_from(own_directory: Path, tmp_path: Path) -> None:
    new_trainer(tmp_path, steps=4, save_strategy="steps", save_steps=4).train()
    resumed = new_trainer(tmp_path, steps=6)
    watch_trainer(resumed)
    resumed.train(resume_from_checkpoint=True)
    assert only(own_directory).steps == [4, 5]


def test_what_is_evaluated_and_logged_is_recorded(own_directory: Path, tmp_path: Path) -> None:
    class Logs(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.global_step == 2:
                trainer.log({"reward": 0.5, "threshold": 3.0, "words": "many"})

    trainer = new_trainer(
        tmp_path, steps=6, eval_strategy="steps", eval_steps=3, eval_dataset=Samples(2), callbacks=[Logs()]
    )
    watch_trainer(trainer)
    trainer.train()
    values = only(own_directory).values
    assert {name: sorted(at) for name, at in values.items()} == {
        "eval_loss": [2, 5], "reward": [1], "logged threshold": [1],
    }  # fmt: skip
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert list(values["eval_loss"].values()) == evaluated


def test_wrong_arguments_are_refused_where_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = new_trainer(tmp_path)
    with pytest.raises(TypeError, match="'treshold'"):
        watch_trainer(trainer, treshold=1)
    state = trainer.accelerator.state
    monkeypatch.setattr(state, "distributed_type", type(state.distributed_type)("DEEPSPEED"))
    with pytest.raises(TypeError, match="under DEEPSPEED: use DDP"):
        watch_trainer(trainer)
