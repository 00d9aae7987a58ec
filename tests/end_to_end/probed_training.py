"""A training whose landscape is looked at while it runs: ``probed_training.py STEPS PAUSE``.

A small convex problem, so that there is something true to say of it: plain gradient descent at a learning rate above
the one that its sharpest direction can bear, held by the clip.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

import gradwatch
import torch
from torch import Tensor, nn
from torch.nn import functional

NAME: Final = "probed training"
LEARNING_RATE: Final = 0.05


def main(steps: int, pause: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 3))
    inputs = torch.randn(64, 12)
    targets = inputs[:, :3] * 2
    held_out = [(torch.randn(16, 12, generator=torch.Generator().manual_seed(seed))) for seed in range(3)]

    def loss_on(batch: Tensor) -> Callable[[nn.Module], Tensor]:
        return lambda given: functional.mse_loss(given(batch), batch[:, :3] * 2)

    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.5)
    with gradwatch.watch(
        model,
        optimizer,
        clip=0.3,
        project="end to end",
        name=NAME,
        probe=[loss_on(batch) for batch in held_out],
        probe_budget=0.5,
        control=True,
    ) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = functional.mse_loss(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            monitor.clip(loss)
            optimizer.step()
            time.sleep(pause)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
