"""The doctor at a server's bed: real servers with and without a token, impostors, dead ones and mute ones."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from gradwatch import __version__
from gradwatch.health import Check
from gradwatch.health.server import SECONDS, check_server
from gradwatch.settings import Settings

from tests.processes import ServerProcess

TOKEN = "doctor-doctor-doctor"


def examined(directory: Path, server: str | None = None, token: str | None = None) -> list[Check]:
    said = {"GRADWATCH_DIR": str(directory), **({"GRADWATCH_TOKEN": token} if token else {})}
    return check_server(Settings.gather(server=server, environment=said))


def by_name(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A server that wants TOKEN: its directory and its address."""
    directory = tmp_path_factory.mktemp("guarded")
    with ServerProcess(directory, GRADWATCH_TOKEN=TOKEN) as server:
        yield directory, server.url


@contextmanager
def imitation(status: int = 200, body: Any = None, date: float | None = None) -> Iterator[str]:
    """Something that answers every request in this way."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() if date is None else date, usegmt=True))
            self.send_header("Location", "https://elsewhere.example/healthz")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


READY = {"status": "ready", "instance": "0", "version": __version__}


@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
def test_a_server_with_the_right_token_is_well(named: bool, guarded: tuple[Path, str]) -> None:
    directory, address = guarded
    checks = examined(directory, address if named else None, TOKEN)
    assert by_name(checks) == dict.fromkeys(("server", "clock", "token", "websocket"), "ok")
    assert any(f"gradwatch {__version__}" in check.text for check in checks)
    assert len([check for check in checks if check.name == "server"]) == (1 if named else 2)


def test_no_token_and_a_wrong_one_are_told_apart(guarded: tuple[Path, str]) -> None:
    directory, address = guarded
    for server in (None, address):
        without, wrong = examined(directory, server), examined(directory, server, "wrong-wrong-wrong-wrong")
        assert by_name(without)["token"] == by_name(wrong)["token"] == "fail"
        assert "GRADWATCH_TOKEN is not set" in without[-1].text and "does not take the token" in wrong[-1].text
        assert "wrong-wrong" not in repr(wrong) and "websocket" not in by_name(wrong)


def test_no_server_is_no_failure(tmp_path: Path) -> None:
    (check,) = examined(tmp_path)
    assert check.state == "warn" and "gradwatch serve" in check.advice


def test_a_server_that_has_died_is_told(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        server.kill()
    (check,) = examined(tmp_path)
    assert check.state == "warn" and "does not answer" in check.text and "gradwatch serve" in check.advice


def test_an_impostor_is_told_and_gets_no_token(tmp_path: Path) -> None:
    with imitation(body={**READY, "proof": "f" * 64}) as address:
        (tmp_path / "server.json").write_text(json.dumps({"url": address, "secret": "s" * 64}))
        (check,) = examined(tmp_path, token=TOKEN)
    assert check.state == "fail" and "is not the server" in check.text


def test_a_damaged_server_json_is_told(tmp_path: Path) -> None:
    for text in ("{", "[]", "{}"):
        (tmp_path / "server.json").write_text(text)
        (check,) = examined(tmp_path)
        assert check.state == "fail" and "delete it" in check.advice


def test_a_named_server_that_is_not_there_fails(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (check,) = examined(tmp_path, f"http://127.0.0.1:{port}")
    assert check.state == "fail" and "refused" in check.text


def test_a_mute_server_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        (tmp_path / "server.json").write_text(json.dumps({"url": address, "secret": "s"}))
        for server in (None, address):
            begun = time.monotonic()
            (check,) = examined(tmp_path, server)
            assert check.state in ("warn", "fail") and time.monotonic() - begun < SECONDS + 2


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, "hello", "is no gradwatch server"),
        (200, {"status": "ready"}, "is no gradwatch server"),
        (404, {"detail": "not found"}, "is no gradwatch server"),
        (403, {}, "does not answer to this name"),
        (302, {}, "redirects to https://elsewhere.example"),
        (200, {**READY, "status": "starting"}, "is not ready: starting"),
    ],
)
def test_other_answers_fail_with_what_they_are(status: int, body: Any, said: str, tmp_path: Path) -> None:
    with imitation(status, body) as address:
        (check,) = examined(tmp_path, address, TOKEN)
    assert check.state == "fail" and said in check.text and check.advice


def test_another_version_and_another_clock_are_warnings(tmp_path: Path) -> None:
    with imitation(body={**READY, "version": "99.0.1"}, date=time.time() + 300) as address:
        checks = examined(tmp_path, address)
    assert by_name(checks)["server"] == by_name(checks)["clock"] == "warn"
    assert any("99.0.1" in check.text for check in checks)
    (clock,) = [check for check in checks if check.name == "clock"]
    assert "300 s behind" in clock.text or "299 s behind" in clock.text or "301 s behind" in clock.text


def test_a_server_whose_websockets_do_not_pass_fails(tmp_path: Path) -> None:
    with imitation(body=READY) as address:
        checks = examined(tmp_path, address)
    assert by_name(checks) == {"server": "ok", "clock": "ok", "token": "ok", "websocket": "fail"}
    assert "WebSocket upgrades" in checks[-1].advice


def test_a_proxy_on_the_way_is_hinted_at_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://user:hunter2@127.0.0.1:9")
    checks = examined(tmp_path, "http://gpu7.invalid:7531")
    assert by_name(checks) == {"server": "fail", "proxy": "warn"}
    assert "127.0.0.1:9" in checks[-1].text and "NO_PROXY=gpu7.invalid" in checks[-1].advice
    assert "hunter2" not in repr(checks)
    monkeypatch.setenv("no_proxy", "gpu7.invalid")
    assert "proxy" not in by_name(examined(tmp_path, "http://gpu7.invalid:7531"))
