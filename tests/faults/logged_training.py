"""A training that also keeps its own log of what it clipped: ``logged_training.py LOG SECONDS [NAN_STEP]``.

It ends after SECONDS at the latest, or once a file named LOG.stop exists.
The log has 16 bytes a step: the total norm that ``clip`` returned, as float32, the loss as float32, the step as int64.
At NAN_STEP one layer's gradient becomes NaN on its way back; the step is skipped.
"""

from __future__ import annotations

import struct
import sys
import time
from pathlib import Path
from typing import Any

import gradwatch
import torch
from torch import Tensor, nn


def main(log: str, seconds: float, nan_step: int) -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    monitor = gradwatch.watch(model, optimizer, clip=0.5, project="faults", nonfinite="skip")
    weight = model[2].weight
    assert isinstance(weight, Tensor)
    poison: Any = weight.register_hook
    poison(lambda gradient: gradient * float("nan") if monitor.step == nan_step else gradient)
    until, stop = time.monotonic() + seconds, Path(log + ".stop")
    with open(log, "wb") as file:
        while time.monotonic() < until and not stop.exists():
            optimizer.zero_grad()
            inputs = torch.randn(16, 8)
            loss = (model(inputs) - inputs[:, :4].sin()).square().mean()
            loss.backward()
            step = monitor.step
            total = monitor.clip(loss)
            optimizer.step()
            file.write(struct.pack("<ffq", total.item(), loss.item(), step))
            time.sleep(0.002)
    monitor.finish()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else -1)
