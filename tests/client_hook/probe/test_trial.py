"""The trial: what would draw a flat line for ever is told from what only begins flat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.client_hook.probe.training import BowlTraining

INPUTS = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


class Adapted(nn.Module):
    """A low-rank adapter as it is before its first step."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.whole = nn.Parameter(torch.randn(4, 2, generator=generator), requires_grad=False)
        self.into = nn.Parameter(torch.randn(4, 2, generator=generator))
        self.out = nn.Parameter(torch.zeros(2, 2))

    def forward(self) -> Tensor:
        loss: Tensor = (INPUTS @ self.whole + INPUTS @ self.into @ self.out).square().mean()
        return loss

    def weights(self) -> Any:
        return self.out.detach().numpy()


class Head(Adapted):
    """Weights that all begin at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.into.requires_grad_(False)


@pytest.mark.parametrize("make", [Adapted, Head])
def test_weights_of_zero_are_moved_too(make: Callable[[], nn.Module]) -> None:
    def nothing(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.0)

    training = BowlTraining(40, model=make(), optimizer=nothing)
    assert training.prober.is_active and training.rows("trajectory", "points")
