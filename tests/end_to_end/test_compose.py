"""docker-compose.yml: what it says is valid, and its parts run together as plain processes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gradwatch
import httpx
import pytest
import torch
import yaml
from gradwatch_server.settings import Settings

from tests.postgresql import PostgreSQL
from tests.processes import ServerProcess

ROOT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
TOKEN = "a token that only this test knows"


def test_the_token_and_the_password_are_required_and_have_no_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert re.search(r"GRADWATCH_TOKEN: \$\{GRADWATCH_TOKEN:\?", text)
    assert text.count("${POSTGRES_PASSWORD:?") == 2 and "${POSTGRES_PASSWORD:-" not in text


def test_its_server_has_settings_that_exist_and_a_command_that_does() -> None:
    server = COMPOSE["services"]["server"]
    known = {f"GRADWATCH_{name.upper()}" for name in Settings.model_fields}
    assert set(server["environment"]) <= known
    recipe = server["build"]["dockerfile_inline"]
    assert 'ENTRYPOINT ["gradwatch"]' in recipe and "USER gradwatch" in recipe
    helped = subprocess.run(
        [sys.executable, "-m", "gradwatch.cli", server["command"][0], "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(option in helped.stdout for option in server["command"] if option.startswith("--"))
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])


@pytest.mark.timeout(120)
def test_its_parts_run_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql: PostgreSQL) -> None:
    """The compose file's command on a real PostgreSQL: training in, series out, nothing without the token."""
    arguments = [*COMPOSE["services"]["server"]["command"][1:-1], "0"]
    said = {"GRADWATCH_TOKEN": TOKEN, "GRADWATCH_DATABASE": postgresql.new_database()}
    with ServerProcess(tmp_path, *arguments, **said) as server:
        assert httpx.get(server.url + "/api/runs").status_code == 401
        _train(server.url, tmp_path, monkeypatch)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        (run,) = server.get("/api/runs", headers=bearer)["runs"]
        assert (run["state"], run["last_step"]) == ("finished", 19)
        health = COMPOSE["services"]["server"]["healthcheck"]["test"][3].replace("7531", server.url[-5:])
        subprocess.run([sys.executable, "-c", health], check=True, timeout=30)
    assert TOKEN not in server.output


def _train(url: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SERVER": url, "TOKEN": TOKEN, "DIR": str(directory), "MODE": "online"}.items():
        monkeypatch.setenv(f"GRADWATCH_{name}", value)
    model = torch.nn.Linear(4, 2)
    with gradwatch.watch(model, clip=1.0, project="compose") as monitor:
        for _ in range(20):
            model.zero_grad()
            loss = model(torch.randn(3, 4)).square().sum()
            loss.backward()
            monitor.clip(loss)


def test_another_address_without_a_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="gradwatch token create"):
        ServerProcess(tmp_path, "--host", "0.0.0.0", "--port", "0")
