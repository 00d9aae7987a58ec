"""A training as a notebook has it, and its next life: ``restarting_training.py CHECKPOINT``.

Without a checkpoint: 60 steps, a checkpoint after 40 of them, then the cell is run again for 15 more steps, and after a
second and a half the kernel is killed. With one: it goes on from there for 30 steps.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gradwatch
import torch
from torch import nn


def main(checkpoint: Path) -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def watch() -> gradwatch.Monitor:
        return gradwatch.watch(model, optimizer, clip=gradwatch.AutoClip(), project="restarts")

    def step(monitor: gradwatch.Monitor) -> None:
        optimizer.zero_grad()
        loss = model(torch.ones(3, 4)).square().mean()
        loss.backward()
        monitor.clip(loss)
        optimizer.step()

    monitor = watch()
    if checkpoint.exists():
        saved: dict[str, Any] = torch.load(checkpoint, weights_only=False)
        model.load_state_dict(saved["model"])
        monitor.load_state_dict(saved["monitor"])
        for _ in range(30):
            step(monitor)
        monitor.finish()
        return
    for number in range(60):
        if number == 40:
            torch.save({"model": model.state_dict(), "monitor": monitor.state_dict()}, checkpoint)
        step(monitor)
    again = watch()
    for _ in range(15):
        step(again)
    time.sleep(1.5)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
