"""A training loop of one's own: ``python examples/plain_loop.py``, while ``gradwatch serve`` runs, or before."""

from __future__ import annotations

import click
import gradwatch
import torch
from gradwatch.demo.corpus import read_corpus
from gradwatch.demo.model import CharacterModel
from gradwatch.demo.train import batches
from torch import nn


@click.command()
@click.option("--steps", default=100, show_default=True)
@click.option("--clip", default=0.5, show_default=True, help="Threshold of the total norm.")
def main(steps: int, clip: float) -> None:
    torch.set_num_threads(1)  # fastest for a model this small
    torch.manual_seed(0)
    model = CharacterModel(width=48)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    with gradwatch.watch(
        model, optimizer, clip=clip, project="examples", name="plain loop", total_steps=steps
    ) as monitor:
        for characters, following in batches(read_corpus(), steps, seed=0):
            optimizer.zero_grad()
            loss = criterion(model(characters).flatten(0, 1), following.flatten())
            loss.backward()
            monitor.clip(loss)  # in the place of torch.nn.utils.clip_grad_norm_
            optimizer.step()
    click.echo(f"loss {loss.item():.3f} after {monitor.step} steps")


if __name__ == "__main__":
    main()
