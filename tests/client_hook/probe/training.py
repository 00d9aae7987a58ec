"""A training whose loss is a known quadratic, watched and probed, that remembers where its weights were."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.measure_only import MeasureOnly
from gradwatch.control import PROBE_LANDSCAPE, Control
from gradwatch.monitor import Monitor
from gradwatch.probe.landscape_rows import LandscapeRows
from gradwatch.probe.prober import Prober
from gradwatch.probe.probing import Probing
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from tests.client_hook.conftest import KeepingSink, monitor_of

Floats = npt.NDArray[np.float64]
SIZE = 12


class Bowl(nn.Module):
    """Half of x'Ax with A of known eigenvalues, x in two parameters; float64."""

    def __init__(self, stiffest: float = 4.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        turn = torch.linalg.qr(torch.randn(SIZE, SIZE, dtype=torch.float64, generator=generator))[0]
        self.matrix = turn @ torch.diag(torch.linspace(0.1, stiffest, SIZE, dtype=torch.float64)) @ turn.T
        start = torch.randn(SIZE, dtype=torch.float64, generator=generator)
        self.first = nn.Parameter(start[:8].clone().reshape(4, 2))
        self.second = nn.Parameter(start[8:].clone())

    def forward(self) -> Tensor:
        x = torch.cat([self.first.flatten(), self.second])
        loss: Tensor = 0.5 * x @ (self.matrix @ x)
        return loss

    def weights(self) -> Floats:
        return torch.cat([self.first.detach().flatten(), self.second.detach()]).numpy()


class BowlTraining:
    """``steps`` steps of ``optimizer`` on a ``Bowl``. ``weights[t]``: those before step t.

    By default the budget is no bound, so that there is a piece of work at every step, however busy the machine.
    """

    def __init__(
        self,
        steps: int = 400,
        *,
        optimizer: Callable[[nn.Module], Optimizer] = lambda model: SGD(model.parameters(), lr=0.02),
        threshold: float | None = None,
        closures: Sequence[Callable[[Any], Any]] = (lambda model: model(),),
        budget: float = 50.0,
        at_step: Callable[[int, BowlTraining], None] = lambda step, training: None,
        model: nn.Module | None = None,
    ) -> None:
        given: Any = Bowl() if model is None else model
        self.model = given
        self.optimizer = optimizer(self.model)
        self.sink = KeepingSink()
        probing = Probing(weakref.ref(self.model), closures, budget)
        strategy = MeasureOnly() if threshold is None else GlobalNorm(threshold)
        control = Control([PROBE_LANDSCAPE], [f"bowl {id(self)}"])
        self.monitor: Monitor = monitor_of(
            self.model, [self.optimizer], strategy, self.sink, probing=probing, control=control
        )
        self.weights: list[Floats] = []
        self.gradients: list[Floats] = []
        for step in range(steps):
            self.weights.append(self.model.weights().copy())
            self.optimizer.zero_grad()
            loss = self.model()
            loss.backward()
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            self.gradients.append(np.concatenate([gradient.numpy().flatten() for gradient in gradients]))
            at_step(step, self)
            self.monitor.clip(loss)
            self.optimizer.step()
        self.weights.append(self.model.weights().copy())

    @property
    def prober(self) -> Prober:
        assert self.monitor._writer is not None and self.monitor._writer._prober is not None
        return self.monitor._writer._prober

    @property
    def matrix(self) -> Floats:
        return self.model.matrix.numpy()  # type: ignore[no-any-return]

    def loss(self, weights: Floats) -> float:
        return float(0.5 * weights @ self.matrix @ weights)

    def ask(self, **surface: Any) -> None:
        """As a viewer would, for a surface."""
        self.sink.asked.append({"command": PROBE_LANDSCAPE, **surface})

    def rows(self, what: str, part: str) -> list[LandscapeRows]:
        return [rows for rows in self.sink.found if (rows.what, rows.part) == (what, part)]


def only(rows: LandscapeRows, name: str) -> float:
    """The one value of a column."""
    (value,) = rows.values[name]
    return float(value)
