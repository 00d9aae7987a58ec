"""A connection to a server's ingest socket: the only file that knows the websockets library."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from gradwatch import __version__, frames

OPEN_TIMEOUT = 10  # seconds for the whole handshake
CLOSE_TIMEOUT = 1  # seconds; the spool keeps what was not acked, so nothing is won by waiting


class ConnectionFailed(Exception):
    """The server cannot be reached or has gone. ``final``: trying again at once is pointless (a wrong token)."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Connection:
    """An open socket. ``send`` may block on the network: never call it in the training thread."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    @classmethod
    def open(cls, server: str, token: str | None) -> Connection:
        """Connect to ``server`` (http or https address). Raises ConnectionFailed with a sentence."""
        address = "ws" + server.removeprefix("http") + "/api/ingest"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        options: dict[str, Any] = {"ssl": ssl.create_default_context()} if address.startswith("wss") else {}
        try:
            socket = connect(
                address,
                subprotocols=[Subprotocol(frames.SUBPROTOCOL)],
                additional_headers=headers,
                compression=None,
                user_agent_header=f"gradwatch/{__version__}",
                open_timeout=OPEN_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
                max_size=frames.MAX_FRAME,
                **options,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            if status in (401, 403):
                raise ConnectionFailed(
                    f"{server} refused the token: set GRADWATCH_TOKEN to the one it was started with", final=True
                ) from None
            raise ConnectionFailed(f"{server} answered with status {status}", final=True) from None
        except (OSError, TimeoutError, InvalidHandshake, WebSocketException, EOFError) as error:
            raise ConnectionFailed(f"{server} cannot be reached: {error}") from None
        return cls(socket)

    def send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except (OSError, ConnectionClosed) as error:
            raise ConnectionFailed(str(error)) from None

    def answers(self) -> Iterator[frames.Frame]:
        """What the server sends, until the socket closes. Blocks; for a thread of its own."""
        try:
            for message in self._socket:
                if isinstance(message, bytes):
                    yield from frames.decode_all(message)
        except (OSError, ConnectionClosed):
            return

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
