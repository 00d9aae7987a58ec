"""From the training to the server's answers: parameters as torch leaves them, numbers as the test computes them."""

from __future__ import annotations

from pathlib import Path

import gradwatch
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.processes import ServerProcess

STEPS, THRESHOLD = 200, 0.4


def train(clip_by_us: bool) -> tuple[list[Tensor], list[list[float]], list[float], list[float]]:
    """Parameters at the end; per step: each layer's norm by NumPy in float64, the returned total norm, the loss."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    monitor = gradwatch.watch(model, optimizer, clip=THRESHOLD, project="exact") if clip_by_us else None
    norms, totals, losses = [], [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        inputs = torch.randn(32, 6)
        loss = (model(inputs) - inputs[:, :3].sin()).square().mean()
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norms.append([float(np.linalg.norm(gradient.double().numpy())) for gradient in gradients])
        if monitor is not None:
            totals.append(monitor.clip(loss).item())
        else:
            totals.append(torch.nn.utils.clip_grad_norm_(model.parameters(), THRESHOLD).item())
        losses.append(loss.item())
        optimizer.step()
    if monitor is not None:
        monitor.finish()
    return [parameter.detach() for parameter in model.parameters()], norms, totals, losses


@pytest.mark.timeout(120)
def test_what_is_stored_is_what_was_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ServerProcess(tmp_path) as server:
        for name, value in {"SERVER": server.url, "DIR": str(tmp_path), "MODE": "online"}.items():
            monkeypatch.setenv(f"GRADWATCH_{name}", value)
        ours, norms, totals, losses = train(clip_by_us=True)
        theirs, _, expected_totals, _ = train(clip_by_us=False)
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
        (run,) = server.await_json(
            "/api/runs", lambda found: found["runs"] and found["runs"][0]["state"] == "finished"
        )["runs"]
        stored = server.raw_series(run["id"], ["total_norm", "loss", "clipped", "threshold"])
        layers = server.get(f"/api/runs/{run['id']}/layers?columns=1000", headers={"Accept": "application/json"})
    assert stored["step"] == list(range(STEPS))
    as_bits = [np.array(series, np.float32).tobytes() for series in (stored["total_norm"], totals, expected_totals)]
    assert as_bits[0] == as_bits[1] == as_bits[2]
    assert stored["loss"] == losses
    assert stored["clipped"] == [float(total > THRESHOLD) for total in totals] and 0 < sum(stored["clipped"]) < STEPS
    assert layers["layers"] == ["0.weight", "0.bias", "2.weight", "2.bias", "3.weight", "3.bias"]
    assert [column["first"] for column in layers["columns"]] == list(range(STEPS))
    for field in ("min", "max", "mean"):
        np.testing.assert_allclose(np.array(layers[field], float), norms, rtol=1e-6)
