"""One training of the demo: ``python -m gradwatch.demo.train``, with or without clipping, all else the same.

Stochastic gradient descent with a learning rate of 2 and momentum 0.9 over 128 characters is a recipe that diverges
without clipping and learns well with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradwatch
from gradwatch.demo.corpus import read_corpus
from gradwatch.demo.model import CharacterModel

LENGTH = 128  # characters a sequence
BATCH = 8
LEARNING_RATE = 2.0
MOMENTUM = 0.9
THRESHOLD = 0.5
PROBE_BUDGET = 0.25  # of the time, where the default is 0.01: a demo's few minutes shall show a whole landscape
HELD_OUT = 20_000  # characters at the end of the corpus that are not trained on


@dataclass(frozen=True, slots=True)
class Outcome:
    """Loss of the first step and mean loss of the last ten."""

    first: float
    last: float


def batches(corpus: Tensor, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random stretches of the corpus and, one character on, what is to be predicted; (BATCH, LENGTH) each."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        starts = torch.randint(len(corpus) - LENGTH - 1, (BATCH,), generator=generator)
        window = torch.stack([corpus[start : start + LENGTH + 1] for start in starts.tolist()])
        yield window[:, :-1], window[:, 1:]


def held_out_loss(corpus: Tensor, generator: torch.Generator) -> Callable[[nn.Module], Tensor]:
    """A probe: the loss on a few stretches of ``corpus``, always the same."""
    starts = torch.randint(len(corpus) - LENGTH // 2 - 1, (BATCH,), generator=generator)
    window = torch.stack([corpus[start : start + LENGTH // 2 + 1] for start in starts.tolist()])

    def loss(model: nn.Module) -> Tensor:
        return functional.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())

    return loss


def train(threshold: float | None, steps: int, seed: int, name: str) -> Outcome:
    """Train once. ``threshold`` None: measured, not clipped."""
    torch.manual_seed(seed)
    model = CharacterModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    criterion = nn.CrossEntropyLoss()
    config = {"learning rate": LEARNING_RATE, "momentum": MOMENTUM, "length": LENGTH, "batch": BATCH, "seed": seed}
    corpus, generator = read_corpus(), torch.Generator().manual_seed(seed)
    probes = [held_out_loss(corpus[-HELD_OUT:], generator) for _ in range(3)]
    losses = []
    with gradwatch.watch(
        model,
        optimizer,
        clip=threshold,
        project="demo",
        name=name,
        group="demo",
        config=config,
        total_steps=steps,
        probe=probes,
        probe_budget=PROBE_BUDGET,
        control=True,
    ) as monitor:
        for characters, following in batches(corpus[:-HELD_OUT], steps, seed):
            optimizer.zero_grad()
            loss = criterion(model(characters).flatten(0, 1), following.flatten())
            loss.backward()
            monitor.clip(loss)
            optimizer.step()
            losses.append(loss.item())
    return Outcome(losses[0], sum(losses[-10:]) / len(losses[-10:]))


@click.command()
@click.option("--clip/--no-clip", default=True)
@click.option("--steps", default=1000, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=2, show_default=True)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
def main(clip: bool, steps: int, seed: int, threads: int) -> None:
    """Train the demo's model once."""
    torch.set_num_threads(threads)
    name = f"clipped at {THRESHOLD}" if clip else "not clipped"
    try:
        outcome = train(THRESHOLD if clip else None, steps, seed, name)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    click.echo(f"{name}: loss {outcome.first:.2f} at the first step, {outcome.last:.2f} at the end")


if __name__ == "__main__":
    main()
