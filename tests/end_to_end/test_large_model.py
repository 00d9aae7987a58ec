"""A model of 100,000 layers: modules and scalars are recorded in their place, and the page's API shows them."""

from __future__ import annotations

from pathlib import Path

import gradwatch
import pytest
import torch
from gradwatch import frames
from torch import nn

from tests.processes import ServerProcess

MODULES, LAYERS_EACH = 1000, 100


@pytest.mark.timeout(120)
def test_it_degrades_to_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ServerProcess(tmp_path) as server:
        for name, value in {"SERVER": server.url, "DIR": str(tmp_path), "MODE": "online"}.items():
            monkeypatch.setenv(f"GRADWATCH_{name}", value)
        parts = [nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(LAYERS_EACH)]) for _ in range(MODULES)]
        model = nn.ModuleList(parts)
        with gradwatch.watch(model, clip=None, project="large") as monitor:
            for step in range(3):
                for parameter in model.parameters():
                    parameter.grad = torch.full((1,), float(step + 1))
                total = monitor.clip()
        assert total.item() == pytest.approx(3 * (MODULES * LAYERS_EACH) ** 0.5)
        (run,) = server.get("/api/runs")["runs"]
        detail = server.get(f"/api/runs/{run['id']}")
        assert len(detail["layers"]) == MODULES <= frames.MAX_LAYERS
        matrix = server.get(f"/api/runs/{run['id']}/layers?columns=10", headers={"Accept": "application/json"})
        for step, column in enumerate(matrix["max"]):
            assert column == pytest.approx([(step + 1) * LAYERS_EACH**0.5] * MODULES)
