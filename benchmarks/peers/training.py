"""One training in a process of its own: the same model, data and seed for every contender.

``python -m benchmarks.peers.training CONTENDER FOLDER --out FILE`` writes what it measured into FILE as JSON. It needs
torch and the contender's own library, nothing else of the project.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers import cpu_time
from benchmarks.peers.loggers import Logger, open_logger
from benchmarks.peers.stored import read_back

WIDTH: Final = 116
HEADS: Final = 4
LAYERS: Final = 12
VOCABULARY: Final = 128
BATCH, LENGTH = 4, 16
BATCHES: Final = 64
SEED: Final = 20


class Block(nn.Module):
    """A pre-norm transformer layer of 12 parameter tensors. (batch, length, WIDTH) in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(WIDTH)
        self.projection = nn.Linear(WIDTH, 3 * WIDTH)
        self.attention = nn.Linear(WIDTH, WIDTH)
        self.before_expansion = nn.LayerNorm(WIDTH)
        self.expansion = nn.Linear(WIDTH, 4 * WIDTH)
        self.contraction = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, _ = hidden.shape
        parts = self.projection(self.before_attention(hidden)).chunk(3, -1)
        query, key, value = (part.view(batch, length, HEADS, -1).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.attention(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        expanded = functional.gelu(self.expansion(self.before_expansion(hidden)))
        return hidden + cast(Tensor, self.contraction(expanded))


class LanguageModel(nn.Module):
    """(batch, length) int64 in, (batch, length, VOCABULARY) logits out; 150 tensors, 2.0 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.last = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return cast(Tensor, self.head(self.last(self.blocks(hidden))))


def batches() -> list[Tensor]:
    """Sequences that count on by a stride of their own, with one token in ten replaced: learnable, and noisy."""
    starts = torch.randint(VOCABULARY, (BATCHES, BATCH, 1))
    strides = torch.randint(1, 8, (BATCHES, BATCH, 1))
    counted = (starts + strides * torch.arange(LENGTH + 1)) % VOCABULARY
    noise = torch.randint(VOCABULARY, counted.shape)
    return list(torch.where(torch.rand(counted.shape) < 0.1, noise, counted))


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, logger: Logger, steps: int) -> list[float]:
    """Train; milliseconds of each whole step."""
    data = batches()
    times = []
    for step in range(steps):
        tokens = data[step % BATCHES]
        begun = time.perf_counter()
        optimizer.zero_grad()
        logits = model(tokens[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        logger.clip(step, loss)
        optimizer.step()
        times.append((time.perf_counter() - begun) * 1e3)
    return times


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for."""

    contender: str
    folder: Path
    steps: int
    server: int | None
    """Process id of the server beside the training, at ``url``."""
    url: str | None


def measure(plan: Plan) -> dict[str, Any]:
    """Train once by ``plan``, and read back what was kept."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model = LanguageModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    servers = () if plan.server is None else (plan.server,)
    logger = open_logger(plan.contender, model, optimizer, plan.folder, plan.url)
    own, beside = cpu_time.own(), cpu_time.beside(servers)
    times = take_steps(model, optimizer, logger, plan.steps)
    begun = time.perf_counter()
    logger.finish()
    finishing = time.perf_counter() - begun
    cpu_time.settle(servers)
    return {
        "milliseconds": times,
        "cpu": cpu_time.own() - own,
        "beside": cpu_time.beside(servers) - beside,
        "finishing": finishing,
        "tensors": len(list(model.parameters())),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": _digest(model),
        "stored": read_back(plan.contender, plan.folder, plan.url).as_json(),
        "versions": versions(),
    }


def _digest(model: nn.Module) -> str:
    """Of the trained weights: the same for all, or they did not do the same work."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of the libraries that are installed here."""
    found = {}
    for name in ("torch", "tensorboard", "wandb", "trackio"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contender")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--server", type=int, default=None)
    parser.add_argument("--url", default=None)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    result = measure(Plan(given.contender, given.folder, given.steps, given.server, given.url))
    given.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
