"""A real server on a free port, in a thread of the test's own process."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import uvicorn
from gradwatch.frames import MAX_FRAME
from gradwatch_server.app import create_app
from gradwatch_server.settings import Settings
from starlette.types import ASGIApp

from .stream import Socket


class Served:
    """Runs while the ``with`` block lasts."""

    def __init__(self, folder: Path, reached: Callable[[str], None] = lambda boundary: None, **settings: Any) -> None:
        self.settings = Settings(dir=folder, **settings)
        self.app = create_app(self.settings, reached)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            _typed(self.app),
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_max_size=MAX_FRAME,
            timeout_graceful_shutdown=1,
            log_config=None,
            lifespan="on",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    def __enter__(self) -> Self:
        self._thread.start()
        end = time.monotonic() + 20
        while not self._server.started:
            assert self._thread.is_alive() and time.monotonic() < end
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def ingest(self, **options: Any) -> Socket:
        """A hook's socket."""
        return Socket(self.url, "/api/ingest", **options)

    def live(self, **options: Any) -> Socket:
        """A viewer's socket."""
        return Socket(self.url, "/api/live", **options)

    def get(self, path: str, **options: Any) -> Any:
        """The JSON of an answer that must be 200."""
        answer = httpx.get(self.url + path, **options)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text, parse_constant=_no_constant)

    def wait(self, path: str, until: Callable[[Any], object], seconds: float = 10) -> Any:
        """The JSON of ``path`` as soon as ``until`` holds for it."""
        end = time.monotonic() + seconds
        while True:
            found = self.get(path)
            if until(found):
                return found
            assert time.monotonic() < end, found
            time.sleep(0.02)


def _typed(app: Any) -> ASGIApp:
    found: ASGIApp = app
    return found


def _no_constant(name: str) -> None:
    raise AssertionError(f"the JSON holds a bare {name}")
