"""What probes cost: the time they account for beside their budget, and whole steps with and without them.

Each model is trained with gradwatch in ABBA order, in one process: without probes, with, with, without. The ratio of a
repeat is that of the two pairs' whole times; A/A, the last run by the first, says what the machine alone makes of equal
work. Trained weights must be the same to the last bit. The bar: accounted time within the budget.

    python -m benchmarks.probe [--steps 500] [--repeats 3] [--budget 0.01] [--device cpu] [--models recurrent ...]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import gradwatch
import torch
from gradwatch.demo.corpus import ALPHABET
from gradwatch.demo.model import CharacterModel
from torch import Tensor, nn
from torch.nn import functional

Batch = tuple[Tensor, Tensor]


class Transformer(nn.Module):
    """A small language model: two layers, 128 wide, over 96 characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), 128)
        layer = nn.TransformerEncoderLayer(128, 4, 256, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.output = nn.Linear(128, len(ALPHABET))

    def forward(self, characters: Tensor) -> Tensor:
        predicted: Tensor = self.output(self.layers(self.embedding(characters)))
        return predicted


def images(size: int, device: str) -> Batch:
    """Noise with a label."""
    return torch.randn(size, 3, 16, 16, device=device), torch.randint(10, (size,), device=device)


def texts(size: int, device: str) -> Batch:
    """Characters, and which follow."""
    characters = torch.randint(len(ALPHABET), (size, 65), device=device)
    return characters[:, :-1], characters[:, 1:]


def convolutional() -> nn.Module:
    """Three convolutions with batch norm."""
    widths = [(3, 16), (16, 32), (32, 64)]
    blocks = [nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU()) for i, o in widths]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(256, 10))


MODELS: Final[dict[str, tuple[Callable[[], nn.Module], Callable[[int, str], Batch], int]]] = {
    "convolutions": (convolutional, images, 8),  # whose steps are short: so many times as many
    "transformer": (Transformer, texts, 1),
    "recurrent": (CharacterModel, texts, 1),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One training: its seconds, what its probes accounted for, how many points they had, and its weights' hash."""

    seconds: float
    spent: float
    elapsed: float
    points: int
    weights: str


def loss_of(model: Any, batch: Batch) -> Tensor:
    predicted = model(batch[0])
    return functional.cross_entropy(predicted.flatten(0, -2), batch[1].flatten())


def train(name: str, steps: int, budget: float, device: str) -> Run:
    """Train a model from the same start; ``budget`` 0: without probes."""
    torch.manual_seed(0)
    make, batches, _ = MODELS[name]
    model = make().to(device)
    held_out = batches(8, device)
    data = [batches(16, device) for _ in range(16)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    monitor = gradwatch.watch(
        model, optimizer, clip=1.0, probe=lambda model: loss_of(model, held_out), probe_budget=budget, name=name
    )
    begun = time.perf_counter()
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, data[step % len(data)])
        loss.backward()  # type: ignore[no-untyped-call]
        monitor.clip(loss)
        optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    prober = monitor._writer._prober if monitor._writer is not None else None
    spent, elapsed, points = (prober.spent, prober.elapsed, prober.points) if prober is not None else (0.0, seconds, 0)
    if prober is not None and not prober.is_active:
        raise SystemExit(f"probing {name} was turned off; why stands above")
    monitor.finish()
    state = b"".join(tensor.cpu().numpy().tobytes() for tensor in model.state_dict().values())
    return Run(seconds, spent, elapsed, points, hashlib.sha256(state).hexdigest())


def compare(name: str, given: argparse.Namespace) -> str:
    """One model's line."""
    ratios, controls, probed, weights = [], [], [], set()
    steps = given.steps * MODELS[name][2]
    train(name, 50, 0.0, given.device)  # whatever is slow the first time
    for _ in range(given.repeats):
        runs = [train(name, steps, budget, given.device) for budget in (0.0, given.budget, given.budget, 0.0)]
        ratios.append((runs[1].seconds + runs[2].seconds) / (runs[0].seconds + runs[3].seconds))
        controls.append(runs[3].seconds / runs[0].seconds)
        probed += runs[1:3]
        weights |= {run.weights for run in runs}
    share = max(run.spent / run.elapsed for run in probed)
    verdict = "within" if share <= given.budget else "ABOVE"
    return (
        f"{name:13} accounted {share:.2%} of the time at most ({verdict} {given.budget:.1%}), "
        f"{statistics.median(run.points for run in probed):.0f} points in {steps} steps of "
        f"{1e3 * statistics.median(run.seconds for run in probed) / steps:.1f} ms; whole training "
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), "
        f"A/A {statistics.median(controls):.3f} ({min(controls):.3f} to {max(controls):.3f}); "
        f"weights {'the same' if len(weights) == 1 else 'DIFFER'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--budget", type=float, default=0.01)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"GRADWATCH_DIR": folder, "GRADWATCH_MODE": "offline"}
        for name in given.models:
            print(compare(name, given), flush=True)
    where = torch.cuda.get_device_name() if given.device == "cuda" else f"{os.cpu_count()} CPUs, one thread"
    print(f"torch {torch.__version__}, {where}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)


if __name__ == "__main__":
    main()
