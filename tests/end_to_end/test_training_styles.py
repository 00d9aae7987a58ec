"""The ways people train, each beside the same training with torch's own clipping: same parameters, true norms."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradwatch
import numpy as np
import pytest
import torch
from gradwatch.monitor import Monitor
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from tests.spooled import spooled

Clip = Callable[[Tensor | None], Any]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GRADWATCH_DIR", str(tmp_path))
    monkeypatch.setenv("GRADWATCH_MODE", "offline")
    torch.manual_seed(0)
    yield
    torch.compiler.reset()


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3))


def batch(step: int, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(size, 6, generator=generator)
    return inputs, inputs[:, :3] * 4 + torch.randn(size, 3, generator=generator)


class Reference:
    """torch's own clipping, with the norms of every clip in float64 by NumPy."""

    def __init__(self, parameters: list[nn.Parameter], threshold: float) -> None:
        self.parameters, self.threshold = parameters, threshold
        self.norms: list[list[float]] = []

    def clip(self, loss: Tensor | None = None) -> Tensor:
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        self.norms.append([float(np.linalg.norm(gradient.double().numpy())) for gradient in gradients])
        return torch.nn.utils.clip_grad_norm_(self.parameters, self.threshold)


def assert_alike(ours: nn.Module, theirs: nn.Module, monitor: Monitor, reference: Reference, tmp_path: Path) -> None:
    monitor.finish()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    steps = spooled(tmp_path)
    np.testing.assert_allclose(steps.norms, reference.norms, rtol=1e-6)
    assert steps.events == [] and steps.series("clipped").sum() > 0


def pair(threshold: float, make: Callable[[nn.Module], Any]) -> tuple[Any, ...]:
    ours, theirs = network(), network()
    optimizers = make(ours), make(theirs)
    monitor = gradwatch.watch(ours, optimizers[0], clip=threshold, fold=False)
    return ours, theirs, optimizers, monitor, Reference(list(theirs.parameters()), threshold)


def sgd(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.05, momentum=0.9)


def test_accumulation_acts_on_the_real_step(tmp_path: Path) -> None:
    ours, theirs, optimizers, monitor, reference = pair(2.0, sgd)
    for model, optimizer, clip in ((ours, optimizers[0], monitor.clip), (theirs, optimizers[1], reference.clip)):
        for step in range(12):
            inputs, targets = batch(step)
            loss = nn.functional.mse_loss(model(inputs), targets) / 4
            torch.autograd.backward(loss)
            if step % 4 == 3:
                clip(loss)
                optimizer.step()
                optimizer.zero_grad()
    assert len(reference.norms) == 3
    assert_alike(ours, theirs, monitor, reference, tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_with_and_without_a_grad_scaler(dtype: torch.dtype, tmp_path: Path) -> None:
    ours, theirs, optimizers, monitor, reference = pair(2.0, sgd)
    scaled = dtype is torch.float16
    for model, optimizer, mine in ((ours, optimizers[0], True), (theirs, optimizers[1], False)):
        scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=2.0**19, growth_interval=1000)
        for step in range(10):
            optimizer.zero_grad()
            inputs, targets = batch(step)
            with torch.autocast("cpu", dtype=dtype):
                loss = nn.functional.mse_loss(model(inputs).float(), targets)
            torch.autograd.backward(scaler.scale(loss))
            if mine:
                monitor.clip(loss, scaler=scaler)
            else:
                scaler.unscale_(optimizer)
                reference.clip()
            scaler.step(optimizer)
            scaler.update()
    monitor.finish()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    steps = spooled(tmp_path)
    np.testing.assert_allclose(steps.norms, reference.norms, rtol=1e-6)
    # float16 overflows at first under this scale: steps that the scaler leaves out, which no NaN of the training is.
    overflowed = [not all(map(math.isfinite, norms)) for norms in reference.norms]
    assert any(overflowed) is scaled and (steps.series("skipped") == np.array(overflowed) * 2.0).all()
    scales = steps.series("loss_scale")
    assert (scales[0] == 2.0**19 and scales[-1] < scales[0]) if scaled else np.isnan(scales).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
@pytest.mark.parametrize("what", ["model", "optimizer step", "clip within a compiled function"])
def test_compiled_parts(what: str, tmp_path: Path) -> None:
    ours, theirs, optimizers, monitor, reference = pair(2.0, sgd)

    def compiled(function: Any) -> Any:
        return torch.compile(function, backend="aot_eager")

    for model, optimizer, clip in ((ours, optimizers[0], monitor.clip), (theirs, optimizers[1], reference.clip)):
        forward = compiled(model) if what == "model" else model
        take_step = compiled(optimizer.step) if what == "optimizer step" else optimizer.step
        # (The reference reads its gradients by NumPy, which a compiled function cannot.)
        within = what.startswith("clip") and model is ours
        clip_now = compiled(lambda loss, clip=clip: clip(loss * 1.0)) if within else clip
        for step in range(6):
            optimizer.zero_grad()
            inputs, targets = batch(step)
            loss = nn.functional.mse_loss(forward(inputs), targets)
            torch.autograd.backward(loss)
            clip_now(loss.detach())
            take_step()
    assert_alike(ours, theirs, monitor, reference, tmp_path)


def test_a_closure_is_clipped_at_every_evaluation(tmp_path: Path) -> None:
    ours, theirs, optimizers, monitor, reference = pair(
        0.5, lambda model: torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    )
    for model, optimizer, clip in ((ours, optimizers[0], monitor.clip), (theirs, optimizers[1], reference.clip)):
        for step in range(3):
            inputs, targets = batch(step)

            def closure(model: Any = model, optimizer: Any = optimizer, clip: Any = clip) -> Tensor:
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(inputs), targets)  # noqa: B023 - called within this turn
                torch.autograd.backward(loss)
                clip(loss)
                return loss

            optimizer.step(closure)
    assert len(reference.norms) > 6
    assert_alike(ours, theirs, monitor, reference, tmp_path)


@pytest.mark.parametrize("together", [True, False], ids=["under one norm", "apart"])
def test_several_optimizers(together: bool, tmp_path: Path) -> None:
    def two(model: nn.Module) -> list[Optimizer]:
        parameters = list(model.parameters())
        return [SGD(parameters[:2], lr=0.05), AdamW(parameters[2:], lr=0.01)]

    ours, theirs, optimizers, monitor, reference = pair(1.0, two)
    for step in range(6):
        for model in (ours, theirs):
            model.zero_grad()
            inputs, targets = batch(step)
            torch.autograd.backward(nn.functional.mse_loss(model(inputs), targets))
        if together:
            monitor.clip()
            reference.clip()
        else:
            for one, other in zip(*optimizers, strict=True):
                monitor.clip(optimizer=one)
                torch.nn.utils.clip_grad_norm_(other.param_groups[0]["params"], 1.0)
        for optimizer in [*optimizers[0], *optimizers[1]]:
            optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    monitor.finish()
    steps = spooled(tmp_path)
    assert steps.events == [] and len(steps.norms) == (6 if together else 12)


def test_parameters_that_freeze_and_thaw(tmp_path: Path) -> None:
    ours, theirs, optimizers, monitor, reference = pair(1.0, sgd)
    for model, optimizer, clip in ((ours, optimizers[0], monitor.clip), (theirs, optimizers[1], reference.clip)):
        for step in range(9):
            model[0].requires_grad_(not 3 <= step < 6)
            optimizer.zero_grad()
            inputs, targets = batch(step)
            loss = nn.functional.mse_loss(model(inputs), targets)
            torch.autograd.backward(loss)
            clip(loss)
            optimizer.step()
    monitor.finish()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    steps = spooled(tmp_path)
    assert steps.absent.sum(axis=1).tolist() == [0, 0, 0, 2, 2, 2, 0, 0, 0]
    for row, norms in enumerate(reference.norms):
        np.testing.assert_allclose(steps.norms[row][~steps.absent[row]], norms, rtol=1e-6)


def test_a_copy_of_model_and_optimizer_trains_on_alone(tmp_path: Path) -> None:
    ours, _, optimizers, monitor, _ = pair(1.0, lambda model: AdamW(model.parameters(), fused=True))
    for _ in range(3):
        ours(torch.ones(2, 6)).sum().backward()
        monitor.clip()
        optimizers[0].step()
    twin, stepper = copy.deepcopy((ours, optimizers[0]))
    assert next(iter(twin.parameters())) is stepper.param_groups[0]["params"][0]
    before = copy.deepcopy(ours.state_dict())
    twin(torch.ones(2, 6)).sum().backward()
    stepper.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in ours.state_dict().items())
    monitor.finish()
    assert len(spooled(tmp_path).norms) == 3
