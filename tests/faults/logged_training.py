"""A training that keeps its own log of what it clipped: ``logged_training.py LOG STEPS [plain]``.

It ends after STEPS, or once a file named LOG.stop exists. The log has 16 bytes a step: the total norm that ``clip``
returned, as float32, the loss as float32, the step as int64. At NAN_STEP one layer's gradient becomes NaN on its way
back; the step is skipped. ``plain``: the same without gradwatch, by torch's own clipping, and without pauses.
"""

from __future__ import annotations

import struct
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

NAN_STEP = 100
THRESHOLD = 0.5
PAUSE = 0.002  # seconds


def main(log: str, steps: int, plain: bool) -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    now = [0]
    weight = model[2].weight
    assert isinstance(weight, Tensor)
    poison: Any = weight.register_hook
    poison(lambda gradient: gradient * float("nan") if now[0] == NAN_STEP else gradient)
    monitor = None
    if not plain:
        import gradwatch

        monitor = gradwatch.watch(model, optimizer, clip=THRESHOLD, project="faults", nonfinite="skip")
    stop = Path(log + ".stop")
    with open(log, "wb") as file:
        while now[0] < steps and not stop.exists():
            optimizer.zero_grad()
            inputs = torch.randn(16, 8)
            loss = (model(inputs) - inputs[:, :4].sin()).square().mean()
            loss.backward()
            if monitor is None:
                total = nn.utils.clip_grad_norm_(model.parameters(), THRESHOLD)
                if total.isfinite():
                    optimizer.step()
            else:
                total = monitor.clip(loss)
                optimizer.step()
                time.sleep(PAUSE)
            file.write(struct.pack("<ffq", total.item(), loss.item(), now[0]))
            now[0] += 1
    if monitor is not None:
        monitor.finish()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["plain"])
