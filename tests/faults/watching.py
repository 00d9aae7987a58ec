"""Many viewers at once: healthy ones that read all, and stalled ones that subscribe and never read."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from gradwatch import frames
from gradwatch.frames import Kind
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol


class Viewers:
    """``count`` viewers of ``run`` in a thread of their own, while the ``with`` block lasts.

    ``gaps``: seconds between two deltas of one viewer. ``codes``: with what close codes they ended.
    """

    def __init__(self, url: str, run: str, count: int, *, columns: int = 100) -> None:
        self.gaps: list[tuple[float, float]] = []  # moment (monotonic seconds), seconds since the one before
        self.codes: list[int | None] = []
        self.last_steps = [-1] * count
        self.ready = 0
        self._address = url.replace("http", "ws", 1) + "/api/live"
        said = {"type": "subscribe", "request": 1, "run": run, "columns": columns, "layers": True}
        self._subscribe = json.dumps(said | {"span": columns, "follow": True})
        self._count = count
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until = time.monotonic() + 30
        while self.ready < self._count:
            assert time.monotonic() < until and self._thread.is_alive(), f"{self.ready} viewers were served"
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(20)

    def _run(self) -> None:
        asyncio.run(self._view_all())

    async def _view_all(self) -> None:
        views = [asyncio.create_task(self._view(number)) for number in range(self._count)]
        while not self._over.is_set() and not all(view.done() for view in views):
            await asyncio.sleep(0.05)
        for view in views:
            view.cancel()
        await asyncio.gather(*views, return_exceptions=True)

    async def _view(self, number: int) -> None:
        protocol = [Subprotocol(frames.SUBPROTOCOL)]
        async with connect(self._address, subprotocols=protocol, compression=None, max_size=None) as viewer:
            await viewer.send(self._subscribe)
            before = None
            try:
                async for message in viewer:
                    assert isinstance(message, bytes)
                    frame = frames.decode(message)
                    if frame.kind is Kind.SNAPSHOT and before is None:
                        self.ready += 1
                        before = time.monotonic()
                    elif frame.kind is Kind.DELTA and before is not None:
                        now = time.monotonic()
                        self.gaps.append((now, now - before))
                        self.last_steps[number], before = frame.header["last_step"], now
            except ConnectionClosed:
                pass
            self.codes.append(viewer.close_code)


class Stalled:
    """One viewer whose socket takes a few KiB and then nothing more, though the connection stands."""

    def __init__(self, url: str, run: str, path: str = "/api/live") -> None:
        where = urlsplit(url)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect((where.hostname, where.port))
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {frames.SUBPROTOCOL}\r\n\r\n".encode()
        )
        assert self._socket.recv(1024).startswith(b"HTTP/1.1 101")
        if path == "/api/live":
            said = {"type": "subscribe", "request": 1, "run": run, "columns": 1000, "layers": True}
            self.send(json.dumps(said).encode(), 0x1)

    @property
    def port(self) -> int:
        """Its own, by which the server's side of the connection is known."""
        number: int = self._socket.getsockname()[1]
        return number

    def send(self, data: bytes, opcode: int = 0x2) -> None:
        """One message of at most 64 KiB."""
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
        self._socket.sendall(bytes([0x80 | opcode]) + size + bytes(4) + data)  # a mask of zeros changes nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
