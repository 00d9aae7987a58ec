"""Bit-identity: a training with probes equals the same without, to the last bit of everything it carries on."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradwatch
import numpy as np
import pytest
import torch
from gradwatch import watching
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer

STEPS = 80
PROBES = 20  # that must have run


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GRADWATCH_DIR", str(tmp_path))
    monkeypatch.setenv("GRADWATCH_MODE", "offline")
    # A budget without a bound, so that there is a probe at every step, however busy the machine.
    monkeypatch.setattr(watching, "_share", lambda name, share: share)
    yield
    torch.compiler.reset()


class Counting(nn.Module):
    """Batch norm, dropout, tied weights, a plain Python count, a cache, and a hook that writes it all down."""

    def __init__(self, *, noisy: bool) -> None:
        super().__init__()
        self.noisy = noisy
        self.inner = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.3)
        self.tied = nn.Linear(6, 6, bias=False)
        self.tied.weight = self.inner.weight
        self.calls = 0
        self.seen: list[float] = []
        if noisy:
            self.drop.register_forward_hook(
                lambda module, inputs, output: self.seen.append(float(output.detach().sum()))
            )

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        noise = random.random() + float(np.random.rand()) if self.noisy else 0.0
        hidden = self.drop(functional.relu(self.norm(self.inner(inputs)))) + 1e-3 * noise
        output: Tensor = self.tied(hidden)
        return output


@dataclass
class Style:
    """A way to train."""

    optimizer: Callable[[nn.Module], Optimizer]
    strategy: Any = 0.5
    accumulate: int = 1
    autocast: bool = False
    """The clip, and with it the probe, stands inside the autocast region."""
    wrap: Callable[[nn.Module], nn.Module] = field(default=lambda model: model)
    nonfinite: Any = "record"
    scaled: bool = False
    """With a GradScaler, which leaves a step out of its own accord."""
    noisy: bool = True
    """Noise of Python's and NumPy's generators and a hook, which a compiler cannot trace."""


def batch(step: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(8, 6)  # of the global generator, as a DataLoader's shuffling would be
    return inputs, inputs.flip(1) * (1 + step % 7)


def held_out() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(99))
    return inputs, inputs.flip(1)


def train(style: Style, probe: Any, budget: float = 50.0) -> tuple[str, gradwatch.Monitor]:
    """The hash of all that the training is at its end, and its monitor."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    bare = Counting(noisy=style.noisy)
    model = style.wrap(bare)
    optimizer = style.optimizer(model)
    monitor = gradwatch.watch(
        model, optimizer, clip=style.strategy, nonfinite=style.nonfinite, probe=probe, probe_budget=budget
    )
    scaler = torch.amp.GradScaler("cpu", enabled=style.scaled)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if style.autocast else nullcontext():
            for part in range(style.accumulate):
                inputs, targets = batch(step + part)
                loss = functional.mse_loss(model(inputs), targets)
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if step == 40 and (style.scaled or style.nonfinite == "skip"):
                bare.inner.bias.grad[0] = float("nan")  # type: ignore[index]
            monitor.clip(loss, scaler=scaler)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return fingerprint(bare, optimizer, losses), monitor


def fingerprint(model: Counting, optimizer: Optimizer, losses: list[float]) -> str:
    tensors = [*model.state_dict().values(), *(parameter.grad for parameter in model.parameters())]
    state = optimizer.state_dict()["state"]
    tensors += [state[at][name] for at in sorted(state) for name in sorted(state[at])]
    plain = [tensor.numpy().tobytes() if isinstance(tensor, Tensor) else tensor for tensor in tensors]
    numpy_state: Any = np.random.get_state()
    chance = (torch.get_rng_state().numpy().tobytes(), numpy_state[1].tobytes(), numpy_state[2], random.getstate())
    flags = [module.training for module in model.modules()]
    everything = (plain, chance, flags, losses, model.calls, model.seen, torch.is_grad_enabled())
    return hashlib.sha256(pickle.dumps(everything)).hexdigest()


def prober_of(monitor: gradwatch.Monitor) -> Any:
    assert monitor._writer is not None
    return monitor._writer._prober


def probe(model: nn.Module) -> Tensor:
    inputs, targets = held_out()
    return functional.mse_loss(model(inputs), targets)


def probe_in_training_mode(model: nn.Module) -> Tensor:
    """As careless as a probe may be: it switches to training mode and draws from every global generator."""
    model.train()
    inputs, targets = held_out()
    noise = torch.randn(()) * 1e-4 + float(np.random.rand()) * 1e-4 + random.random() * 1e-4
    next(iter(torch.utils.data.DataLoader([1, 2, 3], shuffle=True)))  # type: ignore[arg-type]
    return functional.mse_loss(model(inputs), targets) + noise


def sgd(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.05, momentum=0.9)


def adamw(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=0.01)


def fused(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=0.01, fused=True)


def compiled(model: nn.Module) -> nn.Module:
    wrapped: Any = torch.compile(model, backend="eager")
    return wrapped  # type: ignore[no-any-return]


STYLES = {
    "sgd": Style(sgd),
    "adamw": Style(adamw),
    "folded into a fused optimizer": Style(fused),
    "by value": Style(sgd, strategy=gradwatch.Value(0.05)),
    "accumulated": Style(adamw, accumulate=3),
    "inside autocast": Style(adamw, autocast=True),
    "compiled": Style(sgd, wrap=compiled, noisy=False),
    "measured only": Style(sgd, strategy=None),
    "a step is skipped": Style(adamw, nonfinite="skip"),
    "scaled, and a step is skipped": Style(adamw, scaled=True),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("closure", [probe, probe_in_training_mode])
@pytest.mark.parametrize("name", STYLES)
def test_a_probed_training_is_the_same(name: str, closure: Callable[[nn.Module], Tensor]) -> None:
    bare, alone = train(STYLES[name], None)
    alone.finish()
    probed, monitor = train(STYLES[name], closure)
    prober = prober_of(monitor)
    assert prober.is_active and prober.points >= PROBES
    monitor.finish()
    assert probed == bare


def leaking_into_buffers(model: Counting) -> Callable[[nn.Module], Tensor]:
    def closure(given: nn.Module) -> Tensor:
        model(held_out()[0])  # the outer model: its running statistics move on
        return probe(given)

    return closure


def leaking_past_the_versions(model: Counting) -> Callable[[nn.Module], Tensor]:
    def closure(given: nn.Module) -> Tensor:
        model.inner.weight.data.add_(1e-3)  # .data counts no versions
        return probe(given)

    return closure


def leaking_flags(model: Counting) -> Callable[[nn.Module], Tensor]:
    def closure(given: nn.Module) -> Tensor:
        model.eval()
        return probe(given)

    return closure


def leaking_gradients(model: Counting) -> Callable[[nn.Module], Tensor]:
    def closure(given: nn.Module) -> Tensor:
        with torch.enable_grad():
            probe(model).backward()  # type: ignore[no-untyped-call]
        return probe(given)

    return closure


@pytest.mark.parametrize(
    ("leak", "named"),
    [
        (leaking_into_buffers, "buffers"),
        (leaking_past_the_versions, "parameters"),
        (leaking_flags, "training flags"),
        (leaking_gradients, "gradients"),
    ],
)
def test_a_leaking_probe_is_seen_by_the_hash_and_by_the_tripwire(
    leak: Callable[[Counting], Any], named: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bare, alone = train(Style(sgd), None)
    alone.finish()
    leaking: list[Any] = []

    def wrap(model: nn.Module) -> nn.Module:
        leaking.append(leak(model))  # type: ignore[arg-type]
        return model

    probed, monitor = train(Style(sgd, wrap=wrap), lambda model: leaking[0](model))
    assert (probed != bare) == (named != "training flags")  # these can be put back, and are
    assert not prober_of(monitor).is_active and prober_of(monitor).points == 1
    monitor.finish()
    assert f"a probe changed the training's {named}" in capfd.readouterr().err


@pytest.mark.timeout(120)
def test_two_ranks_of_which_the_first_probes(tmp_path: Path) -> None:
    script = Path(__file__).with_name("probed_ranks.py")
    ended = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=110)
    assert ended.returncode == 0, ended.stderr[-2000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0]["probed"] == ranks[0]["bare"] == ranks[1]["probed"] == ranks[1]["bare"]
    assert ranks[0]["points"] >= PROBES and ranks[1]["points"] is None
    assert ranks[0]["sharded"] is False  # refused, and by name:
    assert "a model sharded by FSDP2 (fully_shard) or as DTensor cannot be probed" in ended.stderr
