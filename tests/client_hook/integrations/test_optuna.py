"""Real studies: a run for each trial, one group for a study, and trials that diverge pruned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from gradwatch.integrations.optuna import PruneDiverged, watch_trial
from torch import nn

from tests.client_hook.integrations.plain import (
    accumulated,
    micro_batches,
    new_model,
    new_optimizer,
    train_plainly,
)
from tests.client_hook.integrations.recorded import assert_equal_parameters, assert_same, recorded

optuna.logging.set_verbosity(optuna.logging.WARNING)


def new_study(sampler: Any = None, **options: Any) -> optuna.Study:
    said: dict[str, Any] = {"study_name": "thresholds", "sampler": sampler or optuna.samplers.RandomSampler(seed=1)}
    return optuna.create_study(**{**said, "pruner": optuna.pruners.NopPruner(), **options})


def test_fifty_accumulated_steps_are_those_of_the_plain_loop(own_directory: Path) -> None:
    model = new_model()

    def objective(trial: optuna.Trial) -> float:
        clip = trial.suggest_float("clip", 1.5, 1.5)
        optimizer = new_optimizer(model)
        with watch_trial(trial, model, optimizer, clip=clip, config={"seed": 3}, total_steps=50) as monitor:
            prune = PruneDiverged(trial, monitor)
            for group in accumulated(micro_batches()):
                optimizer.zero_grad()
                loss = torch.zeros(())
                for x, labels in group:
                    part = model(x, labels)["loss"] / len(group)
                    part.backward()
                    loss += part.detach()
                total = monitor.clip(loss)
                optimizer.step()
                prune.step(loss, total)
        return loss.item()

    study = new_study()
    study.optimize(objective, n_trials=1)
    plain = train_plainly()
    (run,) = recorded(own_directory)
    assert_same(run, plain)
    assert_equal_parameters(model, plain)
    assert (run.hello["name"], run.hello["group"]) == ("trial 0", "thresholds")
    assert run.hello["config"] == {"clip": 1.5, "seed": 3}
    reported = study.trials[0].intermediate_values
    assert sorted(reported) == [9, 19, 29, 39, 49]
    assert reported[19] == pytest.approx(sum(plain.loss[10:20]) / 10)


def one_weight(losses: list[float], *, loss_above: float = 2.0, norms: bool = True) -> Callable[[optuna.Trial], float]:
    """A training whose losses are given; its gradient is as non-finite as its loss."""

    def objective(trial: optuna.Trial) -> float:
        model = nn.Linear(1, 1)
        with watch_trial(trial, model, clip=trial.suggest_categorical("clip", [0.5, 2.0])) as monitor:
            prune = PruneDiverged(trial, monitor, loss_above=loss_above, every=2)
            for loss in losses:
                model.weight.grad = torch.full((1, 1), loss)
                total = monitor.clip(loss)
                prune.step(torch.tensor(loss), total if norms else None)
        return losses[-1]

    return objective


@pytest.mark.parametrize(
    ("losses", "norms", "steps", "reason"),
    [
        ([1.0, 1.5, 1.9, 2.2, 2.5, 9.0], True, 4, "diverged: mean loss 2.05 is above 2 x the first, 1"),
        ([1.0, 1.0, 1.0, float("nan"), 1.0], False, 4, "diverged: the loss is not finite"),
        ([1.0, float("inf"), 1.0], False, 2, "diverged: the loss is not finite"),
    ],
)
def test_a_trial_that_diverges_is_pruned_and_its_run_failed(
    own_directory: Path, losses: list[float], norms: bool, steps: int, reason: str
) -> None:
    study = new_study()
    study.optimize(one_weight(losses, norms=norms), n_trials=1)
    assert study.trials[0].state is optuna.trial.TrialState.PRUNED
    (run,) = recorded(own_directory)
    assert len(run.steps) == steps
    assert (run.finish["state"], run.finish["reason"]) == ("failed", reason)
    assert run.events == [(steps - 1, "pruned", reason)]


def test_a_norm_that_is_not_finite_prunes_unless_it_is_left_out(own_directory: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        model = nn.Linear(1, 1)
        with watch_trial(trial, model, clip=1.0) as monitor:
            prune = PruneDiverged(trial, monitor, every=3)
            for norm in (1.0, float("inf"), 1.0, 1.0):
                model.weight.grad = torch.full((1, 1), norm)
                total = monitor.clip(1.0)
                prune.step(1.0, total if trial.number == 0 else None)
        return 0.0

    study = new_study()
    study.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE"]
    states = {run.hello["name"]: (run.finish["state"], len(run.steps)) for run in recorded(own_directory)}
    assert states == {"trial 0": ("failed", 3), "trial 1": ("finished", 4)}


def test_the_studys_own_pruner_is_asked(own_directory: Path) -> None:
    study = new_study(pruner=optuna.pruners.ThresholdPruner(upper=1.2))
    study.optimize(one_weight([1.0, 1.1, 1.3, 1.5, 1.0]), n_trials=1)
    (run,) = recorded(own_directory)
    assert study.trials[0].state is optuna.trial.TrialState.PRUNED
    assert (run.finish["state"], run.finish["reason"]) == ("finished", "pruned by the study: mean loss 1.4")


@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "minimize"]])
def test_a_loss_is_not_reported_where_it_is_not_what_is_minimized(own_directory: Path, directions: list[str]) -> None:
    study = new_study(directions=directions)
    guarded = one_weight([1.0, 1.0, 1.0, 1.0])
    study.optimize(lambda trial: (guarded(trial),) * len(directions), n_trials=1)
    assert study.trials[0].state is optuna.trial.TrialState.COMPLETE
    assert study.trials[0].intermediate_values == {}
    study.optimize(one_weight([1.0, 9.0, 9.0, 9.0]), n_trials=1)
    assert study.trials[1].state is optuna.trial.TrialState.PRUNED


def test_losses_below_zero_have_no_multiple(own_directory: Path) -> None:
    study = new_study()
    study.optimize(one_weight([-1.0, -3.0, 5.0, 6.0]), n_trials=1)
    assert study.trials[0].state is optuna.trial.TrialState.COMPLETE


def test_a_grids_trials_form_one_group_with_their_thresholds(own_directory: Path) -> None:
    study = new_study(optuna.samplers.GridSampler({"clip": [0.5, 2.0]}))
    study.optimize(one_weight([1.0, 0.5]), n_trials=2)
    runs = recorded(own_directory)
    assert {run.hello["group"] for run in runs} == {"thresholds"}
    assert sorted((run.hello["config"]["clip"], run.hello["clip"]["max_norm"]) for run in runs) == [
        (0.5,) * 2,
        (2.0,) * 2,
    ]
    assert len({run.hello["run"] for run in runs}) == 2


def test_trials_side_by_side_have_runs_of_their_own(own_directory: Path) -> None:
    study = new_study()
    study.optimize(one_weight([1.0] * 20), n_trials=6, n_jobs=3)
    runs = recorded(own_directory)
    assert sorted(run.hello["name"] for run in runs) == [f"trial {number}" for number in range(6)]
    assert all(run.steps == list(range(20)) for run in runs)


def test_a_fixed_trial_needs_no_study(own_directory: Path) -> None:
    assert one_weight([1.0, 1.0])(optuna.trial.FixedTrial({"clip": 2.0})) == 1.0
    assert recorded(own_directory)[0].hello["group"] is None


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trial: Any = optuna.trial.FixedTrial({})
    monitor = watch_trial(trial, nn.Linear(1, 1), clip=1.0, name="mine", group="ours", config=3)
    with pytest.raises(ValueError, match="loss_above must be above 1, not 1"):
        PruneDiverged(trial, monitor, loss_above=1)
    with pytest.raises(ValueError, match="every must be at least 1 step, not 0"):
        PruneDiverged(trial, monitor, every=0)
    with pytest.raises(TypeError, match="'treshold'"):
        watch_trial(trial, nn.Linear(1, 1), clip=1.0, treshold=1)
    monkeypatch.setenv("GRADWATCH_RUN", "one")
    with pytest.raises(ValueError, match="GRADWATCH_RUN names one run, and a study has one for each trial: unset it"):
        watch_trial(trial, nn.Linear(1, 1), clip=1.0)
