"""The training that every integration's test repeats under its library, written out by hand with torch's clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

STEPS = 50
ACCUMULATE = 2
MAX_NORM = 1.5  # near the median norm, so that about half of the steps are clipped

Clip = Callable[[list[nn.Parameter]], Any]


class Regression(nn.Module):
    """A small network with a loss of its own: ``forward(x, labels)`` gives ``{"loss": ...}``, as Transformers wants."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.second = nn.Linear(12, 1)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        out = self.second(torch.tanh(self.first(x))).squeeze(-1)
        return {"loss": nn.functional.mse_loss(out, labels), "logits": out}


def new_model() -> Regression:
    torch.manual_seed(3)
    return Regression()


def new_optimizer(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, **options)


def micro_batches(count: int = STEPS * ACCUMULATE) -> list[tuple[Tensor, Tensor]]:
    """Inputs (4, 6) and targets (4,)."""
    generator = torch.Generator().manual_seed(7)
    return [(torch.randn(4, 6, generator=generator), torch.randn(4, generator=generator)) for _ in range(count)]


@dataclass
class Trained:
    """What the loop saw: pre-clip norms by layer and in total, and the loss, one entry a step."""

    model: nn.Module
    layers: list[list[float]] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.model.named_parameters()]


def clip_by_norm(parameters: list[nn.Parameter]) -> None:
    torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)


def clip_nothing(parameters: list[nn.Parameter]) -> None:
    return


def accumulated(batches: list[tuple[Tensor, Tensor]]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    for at in range(0, len(batches), ACCUMULATE):
        yield batches[at : at + ACCUMULATE]


def train_plainly(clip: Clip = clip_by_norm, steps: int = STEPS, **optimizer_options: Any) -> Trained:
    model = new_model()
    optimizer = new_optimizer(model, **optimizer_options)
    trained = Trained(model)
    for group in accumulated(micro_batches(steps * ACCUMULATE)):
        optimizer.zero_grad()
        loss = torch.zeros(())
        for x, labels in group:
            part = model(x, labels)["loss"] / ACCUMULATE
            part.backward()
            loss += part.detach()
        note_step(trained, loss)
        clip(list(model.parameters()))
        optimizer.step()
    return trained


def note_step(trained: Trained, loss: Tensor) -> None:
    """Norms of the gradients as they are now, in float64."""
    norms = [float(p.grad.double().norm()) for p in trained.model.parameters() if p.grad is not None]
    trained.layers.append(norms)
    trained.total.append(float(torch.tensor(norms, dtype=torch.float64).norm()))
    trained.loss.append(float(loss))
