"""The webhook, against a real HTTP server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from .served import Served
from .stream import Writer


class Receiver(ThreadingHTTPServer):
    """Answers with the given statuses in turn, then with 200; keeps what it was sent."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = list(statuses)
        self.got: list[tuple[dict[str, str], dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.send_header("location", self.server.url + "/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    receiver = Receiver(*statuses)
    thread = threading.Thread(target=receiver.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        receiver.server_close()
        thread.join()


def raise_alert(served: Served, writer: Writer) -> None:
    with served.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps([5], [np.nan, 1, 1], loss=1.0))
    served.wait("/api/alerts", lambda found: found["alerts"])


def wait_for(receiver: Receiver, count: int) -> None:
    end = time.monotonic() + 10
    while len(receiver.got) < count and time.monotonic() < end:
        time.sleep(0.02)
    assert len(receiver.got) >= count


def test_a_failed_delivery_is_tried_again_with_the_same_key_and_then_never_more(tmp_path: Path) -> None:
    with receiving(500) as receiver, Served(tmp_path, webhook_url=receiver.url) as served:
        raise_alert(served, Writer())
        wait_for(receiver, 2)
        time.sleep(0.3)
        assert len(receiver.got) == 2
        (first, body), (second, again) = receiver.got
        assert first["idempotency-key"] == second["idempotency-key"]
        assert body["alert"]["first_step"] == 5 and "step 5" in body["text"] and body["run"]["name"] == "a run"
        assert again["alert"]["id"] == body["alert"]["id"]


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    with receiving(302) as receiver, Served(tmp_path, webhook_url=receiver.url) as served:
        raise_alert(served, Writer())
        wait_for(receiver, 2)  # the same address again, after the pause


def test_an_alert_that_nobody_took_is_delivered_after_a_restart(tmp_path: Path) -> None:
    with Served(tmp_path, webhook_url="http://127.0.0.1:9/closed") as served:
        raise_alert(served, Writer())
        time.sleep(0.2)
    with receiving() as receiver, Served(tmp_path, webhook_url=receiver.url):
        wait_for(receiver, 1)


def test_a_webhook_that_is_down_does_not_slow_the_frames(tmp_path: Path) -> None:
    with Served(tmp_path, webhook_url="http://127.0.0.1:9/closed") as served, served.ingest() as socket:
        writer = Writer()
        socket.store(writer, writer.opening())
        for step in range(50):
            socket.store(writer, writer.steps([step], [np.nan if step % 2 else 1, 1, 1], loss=1.0))
        assert served.get(f"/api/runs/{writer.run}")["last_step"] == 49
