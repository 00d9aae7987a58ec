"""A connection to a server's ingest socket: the only file that knows the websockets library."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

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
        self.lost = False  # whoever reads the answers says when there are no more

    @classmethod
    @contextmanager
    def open(cls, server: str, token: str | None) -> Iterator[Connection]:
        """Connect to ``server`` (http or https address) for a block. Raises ConnectionFailed with a sentence."""
        with ExitStack() as stack:
            try:
                socket = stack.enter_context(_connect(server, token))
            except InvalidStatus as error:
                status = error.response.status_code
                # What a proxy answers while its server is started anew (502, 503) passes by itself.
                raise ConnectionFailed(_refusal(server, status), final=status < 500) from None
            except (OSError, TimeoutError, InvalidHandshake, WebSocketException, EOFError, ImportError) as error:
                raise ConnectionFailed(f"{server} cannot be reached: {error}") from None
            yield cls(socket)

    def send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except (OSError, ConnectionClosed) as error:
            raise ConnectionFailed(f"the connection was lost: {error}") from None

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


def _connect(server: str, token: str | None) -> ClientConnection:
    address = "ws" + server.removeprefix("http") + "/api/ingest"
    options: dict[str, Any] = {"ssl": _trust()} if address.startswith("wss") else {}
    if urlsplit(server).hostname in ("127.0.0.1", "::1", "localhost"):
        options["proxy"] = None  # a proxy of the environment cannot know this machine's own servers
    opening: ClientConnection = connect(
        address,
        subprotocols=[Subprotocol(frames.SUBPROTOCOL)],
        additional_headers={"Authorization": f"Bearer {token}"} if token else {},
        compression=None,
        user_agent_header=f"gradwatch/{__version__}",
        open_timeout=OPEN_TIMEOUT,
        close_timeout=CLOSE_TIMEOUT,
        max_size=frames.MAX_FRAME,
        **options,
    )
    return opening


@cache
def _trust() -> ssl.SSLContext:
    """Once for the process: reading the system's certificates holds the interpreter for tens of milliseconds."""
    return ssl.create_default_context()


def _refusal(server: str, status: int) -> str:
    if status == 401:
        return f"{server} wants its token: set GRADWATCH_TOKEN to the one it was started with"
    if status == 403:
        return f"{server} does not answer to this name: start it with the name in GRADWATCH_ALLOWED_HOSTS"
    return f"{server} answered with status {status}: is it a gradwatch server?"
