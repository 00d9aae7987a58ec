"""Optuna: search for the threshold, by a grid or by TPE. The trials are one group; those that diverge are pruned."""

from __future__ import annotations

from collections import deque

import click
import optuna
import torch
from gradwatch.demo.corpus import read_corpus
from gradwatch.demo.model import CharacterModel
from gradwatch.demo.train import batches
from gradwatch.integrations.optuna import PruneDiverged, watch_trial
from torch import nn

GRID = (0.05, 0.2, 0.5, 2.0, 20.0)


def train(trial: optuna.Trial, steps: int) -> float:
    """Mean loss of the last ten steps under the trial's threshold."""
    clip = trial.suggest_float("clip", GRID[0], GRID[-1], log=True)
    torch.manual_seed(0)
    model = CharacterModel(width=32)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    losses: deque[float] = deque(maxlen=10)
    with watch_trial(trial, model, optimizer, clip=clip, project="examples", total_steps=steps) as monitor:
        prune = PruneDiverged(trial, monitor)
        for characters, following in batches(read_corpus(), steps, seed=0):
            optimizer.zero_grad()
            loss = criterion(model(characters).flatten(0, 1), following.flatten())
            loss.backward()
            norm = monitor.clip(loss)
            optimizer.step()
            prune.step(loss, norm)
            losses.append(loss.item())
    return sum(losses) / len(losses)


@click.command()
@click.option("--steps", default=40, show_default=True)
@click.option("--trials", default=len(GRID), show_default=True)
@click.option("--sampler", type=click.Choice(["grid", "tpe"]), default="grid", show_default=True)
def main(steps: int, trials: int, sampler: str) -> None:
    torch.set_num_threads(1)  # fastest for a model this small
    grid, tpe = optuna.samplers.GridSampler({"clip": GRID}), optuna.samplers.TPESampler(seed=0)
    study = optuna.create_study(study_name=f"threshold by {sampler}", sampler=grid if sampler == "grid" else tpe)
    study.optimize(lambda trial: train(trial, steps), n_trials=trials)
    if not study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        raise SystemExit("every trial was pruned")
    click.echo(f"best threshold {study.best_params['clip']:.3g}: loss {study.best_value:.3f}")


if __name__ == "__main__":
    main()
