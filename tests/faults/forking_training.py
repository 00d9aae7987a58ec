"""A training with children of every kind: ``forking_training.py FORKS``.

DataLoader workers by fork, spawn and forkserver, persistent over two epochs, which clip on their own; then the user's
own ``os.fork``, FORKS times, whose child trains on and ends at once or, each fourth time, like a script.
"""

from __future__ import annotations

import os
import sys

import gradwatch
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

MODEL = nn.Linear(4, 4)
METHODS = ("fork", "spawn", "forkserver")


class Batches(Dataset[Tensor]):
    """What a worker does with gradwatch while it loads: a clip of a model it has, and a drop-in clip."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        MODEL(torch.ones(2, 4)).sum().backward()
        gradwatch.clip_grad_norm_(MODEL.parameters(), 1.0)
        return torch.full((4,), float(index))


def main(forks: int) -> None:
    optimizer = torch.optim.SGD(MODEL.parameters(), lr=0.01)
    monitor = gradwatch.watch(MODEL, optimizer, clip=1.0, project="forks", name="parent")

    def step(inputs: Tensor) -> None:
        optimizer.zero_grad()
        loss = MODEL(inputs).square().mean()
        loss.backward()
        monitor.clip(loss)
        optimizer.step()

    step(torch.ones(3, 4))  # from here on threads run, and locks may be held, while processes are forked
    for method in METHODS:
        loader = DataLoader(
            Batches(), batch_size=3, num_workers=1, persistent_workers=True, multiprocessing_context=method
        )
        for _ in range(2):
            for batch in loader:
                step(batch)
        del loader  # torch's own goodbye to workers fails in a forked child
    for number in range(forks):
        step(torch.ones(3, 4))
        child = os.fork()
        if child == 0:
            for _ in range(3):
                step(torch.ones(3, 4))
            monitor.event("child")
            monitor.finish()
            if number % 4:
                os._exit(0)
            return
        step(torch.ones(3, 4))
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit(f"child {number} ended with {status}")
    step(torch.ones(3, 4))
    sys.stdout.write(f"{monitor.step} steps\n")
    monitor.finish()


if __name__ == "__main__":
    main(int(sys.argv[1]))
