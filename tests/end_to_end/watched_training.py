"""A training to look at: ``watched_training.py STEPS PAUSE``, with two NaNs planted and an order that could mislead.

The layers are registered as expand, mix, embed, head and executed as embed, expand, mix, head: who took one order for
the other would blame the wrong layer for both NaNs.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import gradwatch
import torch
from torch import Tensor, nn

NAME: Final = "watched training"
BACKWARD_STEP: Final = 150
FORWARD_STEP: Final = 330  # late enough for the page to be open by then
BACKWARD_LAYER: Final = "mix.weight"  # its NaN reaches expand and embed, which backward comes to later
FORWARD_LAYER: Final = "embed.weight"  # the NaN is born behind it, in expand; the loss then carries it everywhere
LOG_EVERY: Final = 25
MARK_STEP: Final = 60
THRESHOLD: Final = 0.43  # near the middle of the norms


class Shuffled(nn.Module):
    """Executed in another order than registered; ``spoil`` names where the next pass goes wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Linear(16, 32, bias=False)
        self.mix = nn.Linear(32, 32, bias=False)
        self.embed = nn.Linear(8, 16, bias=False)
        self.head = nn.Linear(32, 4)
        self.spoil = ""

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.expand(torch.tanh(self.embed(inputs))))
        if self.spoil == "forward":
            hidden = hidden * float("nan")
        mixed = self.mix(hidden)
        if self.spoil == "backward":
            poison: Any = mixed.register_hook
            poison(lambda gradient: gradient * float("nan"))
        return torch.as_tensor(self.head(torch.tanh(mixed)))


def main(steps: int, pause: float) -> None:
    torch.manual_seed(3)
    torch.set_num_threads(1)
    model = Shuffled()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    monitor = gradwatch.watch(
        model, optimizer, clip=THRESHOLD, nonfinite="skip", project="end to end", name=NAME, total_steps=steps
    )
    for step in range(steps):
        model.spoil = {BACKWARD_STEP: "backward", FORWARD_STEP: "forward"}.get(step, "")
        inputs = torch.randn(16, 8)
        # Noise that no model can learn keeps the norms on both sides of the threshold, from the first step to the last.
        loss = (model(inputs) - inputs[:, :4].sin() - 0.5 * torch.randn(16, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        monitor.clip(loss)
        optimizer.step()
        if step % LOG_EVERY == 0:
            monitor.log({"accuracy": step / steps})
        if step == MARK_STEP:
            monitor.event("checkpoint", f"saved at step {step}")
        time.sleep(pause)
    monitor.finish()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
