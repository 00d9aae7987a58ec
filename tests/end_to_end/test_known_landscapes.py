"""Probes of functions whose landscape is known otherwise: Rosenbrock's valley, and a small net's dense Hessian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from gradwatch.probe.line import Line
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from tests.client_hook.probe.training import BowlTraining, only


class Valley(nn.Module):
    """Rosenbrock's function of a 2 x 1 matrix: a curved valley with its floor at (1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor([[-1.2], [1.0]], dtype=torch.float64))

    def forward(self) -> Tensor:
        x, y = self.place.flatten()
        loss: Tensor = (1 - x) ** 2 + 100 * (y - x**2) ** 2
        return loss

    def weights(self) -> np.ndarray[Any, Any]:
        return self.place.detach().flatten().numpy()


def test_a_surface_is_rosenbrocks_valley() -> None:
    def ask(step: int, training: BowlTraining) -> None:
        if step == 20:
            training.ask(plane="update", levels=17, seed=0, id="valley")

    def make(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.5)

    training = BowlTraining(400, model=Valley(), optimizer=make, at_step=ask)
    (plane,) = [rows for rows in training.rows("surface", "plane") if rows.about["request"] == "valley"]
    anchor, old = training.weights[plane.step], training.weights[plane.step - 1]
    along, uphill = anchor - old, training.gradients[plane.step]
    across = np.array([-along[1], along[0]])  # there is but one direction at right angles
    across *= np.sign(across @ uphill)
    found: dict[tuple[int, int], float] = {}
    for rows in training.rows("surface", "points"):
        if rows.probe == plane.probe:
            found |= dict(zip(zip(rows.values["i"], rows.values["j"], strict=True), rows.values["loss"], strict=True))
    assert len(found) == 289
    for (i, j), loss in found.items():
        u, v = only(plane, "low_u") + i / 4, only(plane, "low_v") + j / 4
        x, y = anchor + u * along + v * across
        assert loss == pytest.approx(scipy.optimize.rosen([x, y]), rel=1e-9)


class Net(nn.Module):
    """A net whose loss bends in every direction, small enough for its dense Hessian."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.inner, self.outer = nn.Linear(3, 4).double(), nn.Linear(4, 1).double()
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        self.inputs = torch.randn(16, 3, generator=generator, dtype=torch.float64)

    def forward(self) -> Tensor:
        predicted = self.outer(torch.tanh(self.inner(self.inputs)))
        loss: Tensor = (predicted.squeeze(1) - self.inputs.prod(1)).square().mean()
        return loss

    def weights(self) -> np.ndarray[Any, Any]:
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters()]).numpy()


def test_the_curvature_along_a_step_is_that_of_the_dense_hessian() -> None:
    training = BowlTraining(300, model=Net(), optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-3))
    model = training.model
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    def loss_of(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [shape.numel() for shape in shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        loss: Tensor = functional_call(model, named, ())
        return loss

    lines: dict[int, dict[float, float]] = {}
    for rows in training.rows("line", "points"):
        lines.setdefault(rows.step, {}).update(zip(rows.values["alpha"], rows.values["loss"], strict=True))
    whole = {step: points for step, points in lines.items() if {-0.5, 0.0, 0.5} <= points.keys()}
    assert len(whole) > 3
    for step, points in whole.items():
        old, new = training.weights[step], training.weights[step + 1]
        hessian = torch.autograd.functional.hessian(loss_of, torch.from_numpy(old)).numpy()  # type: ignore[no-untyped-call]
        curvature = (points[-0.5] - 2 * points[0.0] + points[0.5]) / 0.25
        assert curvature == pytest.approx((new - old) @ hessian @ (new - old), rel=1e-2)


@settings(deadline=None)
@given(st.floats(0.3, 20), st.floats(-1, 1))
def test_the_critical_step_brackets_the_root_that_scipy_finds(root: float, bend: float) -> None:
    def loss(alpha: float) -> float:
        return alpha * (alpha - root) * (1 + 0.01 * bend * alpha)

    line = Line()
    while (alpha := line.next()) is not None:
        line.add(alpha, loss(alpha))
    found = line.summary()
    crossing: Callable[..., float] = scipy.optimize.brentq
    assert found.critical_low <= crossing(loss, root / 2, root * 1.5) <= found.critical_high
