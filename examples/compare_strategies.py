"""Train the demo's model under every clipping strategy: validation loss, and steps to a target loss.

    gradwatch serve &
    python examples/compare_strategies.py --steps 300

All runs form one group, so the dashboard shows them side by side. Everything but the clipping is the same: weights,
batches, optimizer. The thresholds are reasonable first guesses, not tuned ones.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import gradwatch
import torch
from gradwatch.demo.corpus import read_corpus
from gradwatch.demo.model import CharacterModel
from gradwatch.demo.train import LEARNING_RATE, MOMENTUM, batches
from torch import Tensor, nn

STRATEGIES: dict[str, Callable[[], gradwatch.Strategy | None]] = {
    "none": lambda: None,
    "GlobalNorm": lambda: gradwatch.GlobalNorm(0.5),
    "Value": lambda: gradwatch.Value(0.01),
    "PerLayer": lambda: gradwatch.PerLayer(0.2),
    "PerGroup": lambda: gradwatch.PerGroup({"recurrent.*": 0.4, "*": 0.3}),
    "AGC": lambda: gradwatch.AGC(0.02, layers="!output.*"),
    "AutoClip": lambda: gradwatch.AutoClip(10.0, cap=0.5),
    "ZClip": lambda: gradwatch.ZClip(cap=0.5),
    "AdaGC": lambda: gradwatch.AdaGC(warmup=30, lambda_abs=0.5),
    "EMARatio": lambda: gradwatch.EMARatio(1.5, decay=0.97, cap=0.5),
    "SkipSpikes": lambda: gradwatch.SkipSpikes(window=64, sigma=3.0, cap=0.5),
    "Normalize": lambda: gradwatch.Normalize(0.3),
}


@dataclass(frozen=True)
class Result:
    """What came of one training."""

    loss: float
    """Validation loss at the end, nats per character."""
    reached: int | None
    """First step at which the validation loss was at or below the target."""
    clipped: float
    """Share of the steps that were clip events."""
    seconds: float


def validate(model: nn.Module, held_out: list[tuple[Tensor, Tensor]]) -> float:
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(model(text).flatten(0, 1), after.flatten()) for text, after in held_out]
    return torch.stack(losses).mean().item()


def train(name: str, arguments: argparse.Namespace, corpus: Tensor, held_out: list[tuple[Tensor, Tensor]]) -> Result:
    torch.manual_seed(arguments.seed)
    model = CharacterModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    began, reached, clipped, loss = time.perf_counter(), None, 0, math.nan
    with gradwatch.watch(
        model,
        optimizer,
        clip=STRATEGIES[name](),
        project="examples",
        name=name,
        group="compare strategies",
        total_steps=arguments.steps,
    ) as monitor:
        for step, (characters, following) in enumerate(batches(corpus, arguments.steps, arguments.seed)):
            optimizer.zero_grad()
            training_loss = nn.functional.cross_entropy(model(characters).flatten(0, 1), following.flatten())
            training_loss.backward()  # type: ignore[no-untyped-call]
            monitor.clip(training_loss)
            clipped += monitor.clipped
            optimizer.step()
            if step % arguments.every == arguments.every - 1 or step == arguments.steps - 1:
                loss = validate(model, held_out)
                monitor.log({"validation_loss": loss})
                if reached is None and loss <= arguments.target:
                    reached = step + 1
    return Result(loss, reached, clipped / arguments.steps, time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=25, help="steps between two validations")
    parser.add_argument("--target", type=float, default=2.6, help="validation loss to reach")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(STRATEGIES), choices=list(STRATEGIES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    corpus = read_corpus()
    kept = len(corpus) - len(corpus) // 20  # the last twentieth is held out
    held_out = list(batches(corpus[kept:], 8, seed=0))
    to_target = f"steps to {arguments.target}"
    print(f"{'strategy':12} {'validation loss':>15} {to_target:>14} {'clipped':>8} {'seconds':>8}")
    for name in arguments.only:
        result = train(name, arguments, corpus[:kept], held_out)
        reached = "-" if result.reached is None else str(result.reached)
        print(f"{name:12} {result.loss:15.3f} {reached:>14} {result.clipped:8.0%} {result.seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
