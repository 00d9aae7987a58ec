"""Accelerate: a loop as its documentation has it, and one line that watches it."""

from __future__ import annotations

import click
import torch
from accelerate import Accelerator
from gradwatch.demo.corpus import read_corpus
from gradwatch.demo.model import CharacterModel
from gradwatch.demo.train import batches
from gradwatch.integrations.accelerate import watch_accelerator
from torch import nn


@click.command()
@click.option("--steps", default=60, show_default=True)
@click.option("--clip", default=0.5, show_default=True, help="Threshold of the total norm.")
def main(steps: int, clip: float) -> None:
    torch.set_num_threads(1)  # fastest for a model this small
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = CharacterModel(width=48)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=2.0, momentum=0.9))
    with watch_accelerator(
        accelerator, model, optimizer, project="examples", name="Accelerate", total_steps=steps
    ) as monitor:
        for characters, following in batches(read_corpus(), 2 * steps, seed=0):
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(characters).flatten(0, 1), following.flatten())
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), clip)  # recorded from here on
                optimizer.step()
                optimizer.zero_grad()
    click.echo(f"loss {loss.item():.3f} after {monitor.step} steps")


if __name__ == "__main__":
    main()
