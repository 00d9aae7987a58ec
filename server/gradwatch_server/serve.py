"""Running a server: one database, one socket, one server.json; and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
import uvicorn
from gradwatch.frames import MAX_FRAME
from sqlalchemy import make_url

from .app import create_app
from .auth import is_any_address
from .drain import Drain, try_lock
from .identity import Identity
from .settings import DEFAULT_PORT, Settings, is_loopback
from .store.engine import open_engines
from .store.migrations.upgrade import upgrade

STALLED_MS: Final = (
    6_000  # a peer that takes nothing for so long is cut (some seconds later); uvicorn alone never does it
)
# Bytes on their way to one peer. By itself Linux would keep 4 MB for one that has stopped reading.
_SEND_BUFFER: Final = 512 << 10
_NEXT_PORTS: Final = 20
# What an exclusive lock and a WAL cannot be trusted on.
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "fuse.sshfs"}
)


class CannotServe(click.ClickException):
    """A reason not to start, in one line."""


def run(
    settings: Settings,
    *,
    port_is_given: bool = False,
    open_browser: bool = False,
    reached: Callable[[str], None] | None = None,
) -> None:
    """Serve until interrupted. Raises CannotServe before anything is changed."""
    if not is_loopback(settings.host) and settings.secret is None:
        raise CannotServe(
            f"{settings.host} can be reached by others, so a token is needed: "
            "make one by `gradwatch token create` and set GRADWATCH_TOKEN"
        )
    settings.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_server_of(settings), listening(settings, port_is_given=port_is_given) as listener:
        _try_database(settings)
        identity = Identity()
        app = create_app(settings, identity=identity, **({"reached": reached} if reached else {}))
        url = address(settings.host, listener.getsockname()[1])
        server = _Server(_config(app), lambda: _ready(settings, identity, url, open_browser))
        # Ctrl-C and SIGTERM are the way to end a server, not an error of it; uvicorn raises them anew once it ended.
        with contextlib.suppress(KeyboardInterrupt), _terminable():
            try:
                server.run([listener])
            finally:
                identity.withdraw(settings.dir)
                server.stop_draining()
    if not server.was_ready:
        raise CannotServe("the server could not start; the lines above say why")


def _try_database(settings: Settings) -> None:
    """Open the database and bring its schema up to date, while what goes wrong can still be said in one line."""

    async def attempt() -> None:
        engines = open_engines(settings.database_url)
        try:
            await upgrade(engines.plain)
        finally:
            await engines.dispose()

    try:
        asyncio.run(attempt())
    except ModuleNotFoundError as error:
        if error.name == "asyncpg":
            raise CannotServe("PostgreSQL needs its driver: pip install 'gradwatch[server,postgresql]'") from None
        raise CannotServe("only SQLite files and postgresql:// addresses are known as databases") from None
    except Exception as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        raise CannotServe(f"the database cannot be opened: {reason}") from None


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Server(uvicorn.Server):
    """uvicorn's server that says when it listens, and drains leftover spools beside its work."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], Drain]) -> None:
        super().__init__(config)
        self._ready = ready
        self._drain: Drain | None = None
        self._draining: asyncio.Task[None] | None = None
        self.was_ready = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self.was_ready = True
            self._drain = self._ready()
            self._draining = asyncio.create_task(self._drain.run(), name="gradwatch drain")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._draining:
            self._draining.cancel()
        await super().shutdown(sockets)

    def stop_draining(self) -> None:
        """What is left in spools waits for the next start."""
        if self._drain:
            self._drain.stop()


def _config(app: object) -> uvicorn.Config:
    # uvicorn logs whole addresses at INFO; nothing of a request belongs into a log.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # uvicorn calls every websocket that was refused with a status an error of ours.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "completing handshake" not in record.getMessage())
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_max_size=MAX_FRAME,
        # An answer waits behind the frames of a hook that the server does not read for a while, and a native call may
        # hold a training's interpreter for a minute; a peer that is gone is found by STALLED_MS.
        ws_ping_timeout=90,
        timeout_graceful_shutdown=3,
        access_log=False,
        log_config=None,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        lifespan="on",
    )


def _ready(settings: Settings, identity: Identity, url: str, open_browser: bool) -> Drain:
    identity.announce(settings.dir, url)
    click.echo(f"gradwatch is at {url}  (Ctrl-C ends it)")
    if os.environ.get("SSH_CONNECTION"):
        port = url.rpartition(":")[2]
        click.echo(f"from your own machine: ssh -L {port}:127.0.0.1:{port} {getpass.getuser()}@{socket.gethostname()}")
    sys.stdout.flush()
    if open_browser:
        webbrowser.open(url)
    return Drain(settings, url)


def address(host: str, port: int) -> str:
    """The address a browser on this machine uses."""
    if is_any_address(host):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def listening(settings: Settings, *, port_is_given: bool) -> Iterator[socket.socket]:
    """A socket that listens where the settings say, or on the next free port where none was asked for."""
    tries = 1 if port_is_given or settings.port != DEFAULT_PORT else _NEXT_PORTS
    error: OSError | None = None
    for port in range(settings.port, min(settings.port + tries, 65_536)):
        try:
            listener = _bind(settings.host, port)
        except OSError as failed:
            error = failed
            continue
        with listener:
            yield listener
        return
    reason = error.strerror if error and error.strerror else str(error)
    raise CannotServe(f"cannot listen on {settings.host} port {settings.port}: {reason}; choose another by --port")


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name != "nt":  # there it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        listener.bind(where)
        listener.listen(2048)  # taken now, or another process could still come first
    except BaseException:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _only_server_of(settings: Settings) -> Iterator[None]:
    """Hold the SQLite file's lock; a second server on it, or a network file system, is refused."""
    url = make_url(settings.database_url)
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        yield
        return
    file = Path(url.database)
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = file_system_of(file.parent)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise CannotServe(
            f"{file} lies on a network file system ({kind}), where SQLite loses data: "
            "choose a local --database, or PostgreSQL"
        )
    # Runs and configurations are nobody else's business; SQLite gives its other files the mode of this one.
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    with file.with_name(file.name + ".lock").open("a") as lock:
        if not try_lock(lock.fileno()):
            raise CannotServe(f"another gradwatch already serves {file}: open that one, or end it with Ctrl-C there")
        yield


def file_system_of(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system that holds ``folder``, or "" where the system does not say."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    found = ("", "")
    for line in lines:
        _, point, kind, *_ = [*line.split(" "), "", ""]
        point = point.replace("\\040", " ")
        if folder.resolve().is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, kind)
    return found[1]
