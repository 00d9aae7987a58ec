from __future__ import annotations

import hmac
from pathlib import Path

import httpx
from gradwatch_server.api.export_csv import guarded
from gradwatch_server.identity import Identity

from ..served import Served


def test_the_health_probe_proves_who_answers(server: Served) -> None:
    found = server.get("/healthz?challenge=00ff")
    identity: Identity = server.app.state.identity
    assert found["status"] == "ready" and found["instance"] == identity.instance and found["version"]
    assert found["proof"] == hmac.new(identity.secret.encode(), b"00ff", "sha256").hexdigest()
    assert "proof" not in server.get("/healthz")


def test_plotly_comes_from_its_package(server: Served) -> None:
    answer = httpx.get(server.url + "/static/plotly.min.js")
    assert answer.status_code == 200 and len(answer.content) > 1_000_000
    assert "javascript" in answer.headers["content-type"]


def test_the_login_form_has_an_icon_that_needs_no_token(tmp_path: Path) -> None:
    """Without one, browsers ask for /favicon.ico and log that they may not have it."""
    with Served(tmp_path, token="a token that is long enough") as guarded:
        assert '<link rel="icon" href="static/icon.svg"' in httpx.get(guarded.url + "/login").text
        assert httpx.get(guarded.url + "/static/icon.svg").status_code == 200


def test_cells_that_a_spreadsheet_would_run_are_quoted() -> None:
    for text in ("=1", "+1", "-1", "@x", "\tx"):
        assert guarded(text) == "'" + text
    assert guarded("loss") == "loss"
