"""Finding one's own server, and no other."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

from gradwatch.discovery import find_server


@contextmanager
def listener(secret: str) -> Iterator[str]:
    """Something on a port that proves to know ``secret``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            challenge = parse_qs(urlparse(self.path).query)["challenge"][0]
            proof = hmac.new(secret.encode(), challenge.encode(), hashlib.sha256).hexdigest()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"status": "ready", "proof": proof}).encode())

        def log_message(self, format: str, *args: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def write(directory: Path, **said: object) -> None:
    (directory / "server.json").write_text(json.dumps(said))


def test_ones_own_server_is_found(tmp_path: Path) -> None:
    with listener("s3cret") as address:
        write(tmp_path, url=address + "/", secret="s3cret")
        assert find_server(tmp_path) == address


def test_a_stranger_on_the_port_is_not_believed(tmp_path: Path) -> None:
    with listener("another") as address:
        write(tmp_path, url=address, secret="s3cret")
        assert find_server(tmp_path) is None


def test_nothing_there_is_no_server(tmp_path: Path) -> None:
    assert find_server(tmp_path) is None
    write(tmp_path, url="http://127.0.0.1:9", secret="s")
    assert find_server(tmp_path) is None
    (tmp_path / "server.json").write_text("{ half written")
    assert find_server(tmp_path) is None
