"""One request: bounded in time, without following redirects, with the answer whatever its status."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from gradwatch.health.web import NoAnswer, get, within


@contextmanager
def answering(status: int, seen: list[tuple[str, str | None]], **headers: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["authorization"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"hello")

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


@pytest.mark.parametrize("status", [200, 401, 404, 503])
def test_every_status_is_an_answer(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # of no use to an address of this machine
    seen: list[tuple[str, str | None]] = []
    with answering(status, seen) as address:
        answer = get(f"{address}/path", "secret", 5)
    assert (answer.status, answer.body) == (status, b"hello") and seen == [("/path", "Bearer secret")]


def test_a_redirect_is_not_followed_with_the_token() -> None:
    stolen: list[tuple[str, str | None]] = []
    with answering(200, stolen) as other, answering(302, [], location=other) as address:
        answer = get(address, "secret", 5)
    assert answer.status == 302 and answer.headers["location"] == other and stolen == []


def test_silence_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begun = time.monotonic()
        with pytest.raises(NoAnswer):
            get(f"http://127.0.0.1:{mute.getsockname()[1]}", None, 0.3)
        assert time.monotonic() - begun < 3


def test_nobody_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NoAnswer, match="refused"):
        get(f"http://127.0.0.1:{port}", None, 5)


def test_what_takes_too_long_is_given_up_and_errors_are_passed_on() -> None:
    with pytest.raises(NoAnswer, match="nothing within 0.1 s"):
        within(0.1, lambda: time.sleep(2))
    with pytest.raises(ZeroDivisionError):
        within(1, lambda: 1 // 0)
    assert within(5, lambda: "done") == "done"
