"""Connections through HTTP proxies, and what is said when one cannot be had. Real sockets, a real small proxy."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from gradwatch import connection
from gradwatch.connection import Connection, ConnectionFailed
from gradwatch.frames import Kind

from tests.processes import clean_environment
from tests.server.served import Served
from tests.server.stream import Writer

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
FAR = "http://gradwatch.example:7531"  # a name that only the proxy can make something of


class Proxy:
    """An HTTP proxy that knows CONNECT. It leads every name to ``port`` here, or answers with ``refusal``."""

    def __init__(self, port: int, refusal: str | None = None) -> None:
        self.asked: list[str] = []
        self._port, self._refusal = port, refusal
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = [self._listener]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        self.asked.append(head.split(b"\r\n")[0].decode())
        if self._refusal is not None:
            client.sendall(f"HTTP/1.1 {self._refusal}\r\nContent-Length: 0\r\n\r\n".encode())
            client.close()
            return
        server = socket.create_connection(("127.0.0.1", self._port))
        self._open.append(server)
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for one, other in ((client, server), (server, client)):
            threading.Thread(target=_pump, args=(one, other), daemon=True).start()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._open:
            one.close()


def _pump(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def stored_through(server: Served, address: str) -> None:
    """Send a run to ``address``; it must end up on ``server``."""
    writer = Writer(run=address)
    with Connection.open(address, None) as opened:
        opened.send(writer.opening() + writer.steps(range(100)))
        for answer in opened.answers():
            assert answer.kind is Kind.ACK, answer.header
            if answer.header["through"] == writer.seq - 1:
                break
    assert server.get(f"/api/runs/{writer.run}", trust_env=False)["last_step"] == 99


def test_a_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(Served(tmp_path, allowed_hosts="gradwatch.example"))
        proxy = stack.enter_context(Proxy(int(server.url.rpartition(":")[2])))
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        stored_through(server, FAR)
        assert proxy.asked == ["CONNECT gradwatch.example:7531 HTTP/1.1"]


def test_this_machines_own_server_is_reached_without_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Served(tmp_path) as server, Proxy(1) as proxy:
        for name in PROXIES[:3]:
            monkeypatch.setenv(name, proxy.url)
        stored_through(server, server.url)
        assert proxy.asked == []


@pytest.mark.parametrize("refusal", ["403 Forbidden", "407 Proxy Authentication Required", "502 Bad Gateway"])
def test_a_proxy_that_refuses_is_named_in_one_line(refusal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(1, refusal) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(ConnectionFailed) as failed, Connection.open(FAR, None):
            raise AssertionError("connected")
    said = str(failed.value)
    assert FAR in said and "proxy" in said and refusal[:3] in said and "\n" not in said


@pytest.mark.parametrize("address", ["socks5://127.0.0.1:1", "not an address", "http://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", address)
    with pytest.raises(ConnectionFailed) as failed, Connection.open(FAR, None):
        raise AssertionError("connected")
    assert FAR in str(failed.value) and "\n" not in str(failed.value)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"])
def test_what_is_no_gradwatch_server_is_named_in_one_line(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ConnectionFailed) as failed, Connection.open(address, None):
            raise AssertionError("connected")
        thread.join()
    assert address in str(failed.value) and "\n" not in str(failed.value)


def test_a_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OPEN_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectionFailed, match="timed out"), Connection.open(address, None):
            raise AssertionError("connected")


def test_frames_are_masked_by_compiled_code() -> None:
    """In pure Python the mask of one batch would hold the interpreter for milliseconds."""
    import websockets.frames

    assert type(vars(websockets.frames)["apply_mask"]).__name__ == "builtin_function_or_method"


def test_the_sender_and_sync_need_no_torch(tmp_path: Path) -> None:
    code = "import sys, gradwatch.spool, gradwatch.sender, gradwatch.sync; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=clean_environment(tmp_path), timeout=60).returncode == 0
