"""Between client and server everything goes wrong that can: nothing is lost, and all is well again soon after."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlsplit

import pytest
from gradwatch import frames

from tests.faults.conftest import OpenSession
from tests.faults.forked import ForkedServer
from tests.faults.sessions import SOAK, Session, side_by_side
from tests.network import Network

FAULT_SECONDS = 0.7
RECOVERY_SECONDS = 30.0  # at most; the hook doubles its pause between two tries up to 15 s

REPLIES: dict[str, bytes] = {
    "closes at once": b"",
    "rubbish": bytes(range(256)) * 40,
    "status 500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "half an answer": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso",
}
# What a websocket server that is not ours says after its handshake: subprotocol, and a message's bytes.
IMPOSTORS: dict[str, tuple[str, bytes]] = {
    "no subprotocol": ("", b""),
    "rubbish in a message": (frames.SUBPROTOCOL, b"\x82\x10" + bytes(range(16))),
    "a frame cut short": (frames.SUBPROTOCOL, b"\x82\x0aGW\x01\x40" + bytes(6)),
    "an ack of what was never sent": (
        frames.SUBPROTOCOL,
        (lambda ack: b"\x82" + bytes([len(ack)]) + ack)(
            frames.encode(frames.Kind.ACK, {"writer": "f" * 32, "through": 10**9, "ranges": []})
        ),
    ),
    "text": (frames.SUBPROTOCOL, b"\x81\x05hello"),
}


@contextmanager
def impostor(subprotocol: str, message: bytes) -> Iterator[tuple[str, int]]:
    """A server that shakes hands, says ``message`` and listens for ever."""

    def serve(client: socket.socket) -> None:
        with client:
            request = b""
            while b"\r\n\r\n" not in request:
                data = client.recv(4096)
                if not data:
                    return
                request += data
            key = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)
            if key is None:  # the question whether it is the server of server.json
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                return
            proof = hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            head += f"Sec-WebSocket-Accept: {base64.b64encode(proof).decode()}\r\n"
            head += f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
            client.sendall(head.encode() + b"\r\n" + message)
            while client.recv(1 << 16):
                pass

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_quietly, args=(serve, client), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield ("127.0.0.1", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def _quietly(serve: Callable[[socket.socket], None], client: socket.socket) -> None:
    try:
        serve(client)
    except OSError:
        return


def faults(network: Network, session: Session) -> dict[str, Callable[[], None]]:
    """By name, what begins a fault; healing ends it."""

    def cut() -> None:
        network.cut_after(session.random.randint(1, 30_000))

    def reply(data: bytes) -> Callable[[], None]:
        def begin() -> None:
            network.reply = data
            network.reset()

        return begin

    def turn(mode: str, *, afresh: bool) -> Callable[[], None]:
        def begin() -> None:
            network.mode = mode  # type: ignore[assignment]
            if afresh:
                network.reset()

        return begin

    return {
        "refused": network.refuse,
        "reset": network.reset,
        **{f"cut mid-frame {number}": cut for number in range(4)},
        **{name: reply(data) for name, data in REPLIES.items()},
        "blackholed": turn("hold", afresh=False),
        "blackholed handshake": turn("hold", afresh=True),
        "answers swallowed": turn("mute", afresh=False),
        "slow": turn("drip", afresh=False),
        "slow handshake": turn("drip", afresh=True),
    }


def await_newest(server: ForkedServer, session: Session) -> float:
    """Seconds until the server shows the newest step of this moment."""
    begun, newest = time.monotonic(), int(session.truth().steps["step"][-1])
    path = f"/api/runs/{session.truth().run}"
    server.await_json(path, lambda run: (run["last_step"] or 0) >= newest, RECOVERY_SECONDS)
    return time.monotonic() - begun


@pytest.mark.timeout(240 + 120 * SOAK)
def test_faults_of_the_network(open_sqlite: OpenSession) -> None:
    """No database has a part in it, so one kind is enough."""
    side_by_side([partial(go_through_faults, open_sqlite), partial(go_through_impostors, open_sqlite)])


def go_through_faults(open_session: OpenSession) -> None:
    """One client lives through all faults, in an order of chance."""
    with streaming_through_network(open_session, "faults") as (session, server, network):
        for _ in range(SOAK):
            some = list(faults(network, session).items())
            session.random.shuffle(some)
            for name, begin in some:
                begin()
                time.sleep(FAULT_SECONDS)
                network.heal()
                if name == "answers swallowed":
                    network.reset()  # what was swallowed does not come again on that connection
                sys.stdout.write(f"{name}: well again after {await_newest(server, session):.1f} s\n")


def go_through_impostors(open_session: OpenSession) -> None:
    """Servers that are not ours take the port; once ours is back, all arrives there."""
    with streaming_through_network(open_session, "impostors") as (session, server, network):
        home = network.target
        for name, (subprotocol, message) in IMPOSTORS.items():
            with impostor(subprotocol, message) as other:
                network.target = other
                network.reset()
                time.sleep(FAULT_SECONDS)
                network.target = home
                network.reset()
            sys.stdout.write(f"{name}: well again after {await_newest(server, session):.1f} s\n")


@contextmanager
def streaming_through_network(open_session: OpenSession, about: str) -> Iterator[tuple[Session, ForkedServer, Network]]:
    """A client streams through the network while the block lasts; then all that it produced must be there."""
    with open_session(about) as session, session.server() as server:
        where = urlsplit(server.url)
        assert where.hostname and where.port
        with (
            Network((where.hostname, where.port)) as network,
            session.client(server=network.url, pause=0.03) as client,
        ):
            server.await_json("/api/runs", lambda found: found["runs"])
            yield session, server, network
            session.stop(client)
            session.truth().check(server)
            session.truth().check_alerts(server)
    session.check_database()
