"""A network that fails as it is told to: a TCP proxy on a port of its own, before a server of the tests."""

from __future__ import annotations

import socket
import struct
import threading
import time
from typing import Final, Literal, Self

Mode = Literal["forward", "hold", "mute", "drip"]
_CHUNK: Final = 64 << 10
_TICK: Final = 0.02  # seconds between two looks at what it is told
_RESET: Final = struct.pack("ii", 1, 0)  # linger: a close that drops everything and resets the connection


class Network:
    """Forwards connections on ``port`` to ``target``: (host, port), or the path of a Unix socket.

    ``mode``: "forward"; "hold": nothing moves, and what waits moves on later; "mute": the target hears all, and what
    it answers is swallowed; "drip": a few bytes at a time. ``reply``: bytes that a new connection is answered with
    before it is closed, instead of being forwarded. It ends with the ``with`` block.
    """

    def __init__(self, target: tuple[str, int] | str) -> None:
        self.target = target
        self.mode: Mode = "forward"
        self.reply: bytes | None = None
        self.connections = 0  # so far
        self._cut_after: int | None = None
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._listener: socket.socket | None = None
        self._ended = False
        self.port = 0
        self.accept()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def accept(self) -> None:
        """Listen, on the same port as ever."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Listen no more, and reset what is connected."""
        if self._listener is not None:
            # A close alone does not wake the thread that accepts, and the port would stay open until it is.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.reset()

    def reset(self) -> None:
        """Cut all connections."""
        with self._guard:
            for one in self._open:
                _reset(one)
            self._open.clear()

    def cut_after(self, size: int) -> None:
        """Reset all connections once ``size`` more bytes have gone to the target."""
        with self._guard:
            self._cut_after = size

    def heal(self) -> None:
        """Forward from now on."""
        self.reply, self.mode = None, "forward"
        with self._guard:
            self._cut_after = None
        if self._listener is None:
            self.accept()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self.refuse()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.reply is not None:
            client.sendall(self.reply)
            time.sleep(_TICK)
            client.close()
            return
        try:
            if isinstance(self.target, str):
                server = socket.socket(socket.AF_UNIX)
                server.connect(self.target)
            else:
                server = socket.create_connection(self.target)
        except OSError:
            _reset(client)
            return
        with self._guard:
            self._open |= {client, server}
        for source, sink, up in ((client, server, True), (server, client, False)):
            source.settimeout(_TICK)
            threading.Thread(target=self._pump, args=(source, sink, up), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        try:
            while not self._ended:
                if self.mode == "hold":
                    time.sleep(_TICK)
                    continue
                try:
                    data = source.recv(512 if self.mode == "drip" else _CHUNK)
                except TimeoutError:
                    continue
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                if self.mode == "drip":
                    time.sleep(_TICK)
                if up or self.mode != "mute":
                    self._pass(sink, data, up)
        except OSError:
            _reset(source)
            _reset(sink)

    def _pass(self, sink: socket.socket, data: bytes, up: bool) -> None:
        with self._guard:
            cut = up and self._cut_after is not None and self._cut_after <= len(data)
            if cut:
                data, self._cut_after = data[: self._cut_after], None
            elif up and self._cut_after is not None:
                self._cut_after -= len(data)
        while data:
            try:
                data = data[sink.send(data) :]
            except TimeoutError:
                if self._ended:
                    return
        if cut:
            self.reset()


def _reset(one: socket.socket) -> None:
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
    finally:
        one.close()
