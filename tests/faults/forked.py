"""Processes that are born in milliseconds: forked from one that has everything imported, and killed as any other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gradwatch_server import serve
from gradwatch_server.settings import Settings

from tests.processes import Asking, await_announcement, clean_environment

# What serving loads only once it runs; importing all of it takes two seconds, which a kill would otherwise cost.
_PRELOADED: Final = [
    "asyncpg",
    "aiosqlite",
    "alembic.command",
    "encodings.idna",
    "gradwatch.sender",
    "gradwatch_server.serve",
    "numpy.ma",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "tests.faults.streaming_client",
    "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_PRELOADED)
# Starting a process looks after all others, and a status can be fetched once only: never by two threads at a time.
_guard = threading.Lock()


class Forked:
    """``target(*arguments)`` in a process of its own with the environment of ``directory``; its output is in ``log``.

    It ends with the ``with`` block: by SIGTERM, and by force where that does not help in 15 s.
    """

    def __init__(
        self, target: Callable[..., None], directory: Path, log: Path, *arguments: object, **said: str
    ) -> None:
        self._log = log
        environment = clean_environment(directory, **said)
        self._process = _context.Process(target=_begin, args=(target, environment, str(log), arguments))
        with _guard:
            self._process.start()

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, -N where signal N ended it; None as long as it runs."""
        with _guard:
            return self._process.exitcode

    def is_alive(self) -> bool:
        return self.status is None

    def kill(self) -> None:
        """kill -9."""
        with _guard:
            self._process.kill()
        self.wait(10)

    def wait(self, seconds: float) -> int:
        """Its exit status."""
        until = time.monotonic() + seconds
        while (status := self.status) is None:
            assert time.monotonic() < until, f"still running after {seconds:g} s: {self.output[-2000:]}"
            time.sleep(0.02)
        return status

    def end(self) -> int:
        """SIGTERM, as one who ends it would send it; its exit status."""
        with _guard:
            self._process.terminate()
        try:
            return self.wait(15)
        except AssertionError:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_alive():
            self.end()


class ForkedServer(Forked, Asking):
    """``gradwatch serve`` on ``directory``; ready when constructed.

    ``boundary``: where it dies by SIGKILL, when it comes there for the ``times``-th time.
    """

    def __init__(self, directory: Path, database: str = "", boundary: str = "", times: int = 1, port: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "server.json").unlink(missing_ok=True)  # a killed server has left its own
        said = {"GRADWATCH_DATABASE": database} if database else {}
        super().__init__(_serve, directory, directory / "server.log", boundary, times, port, **said)
        address = await_announcement(directory, self.is_alive)
        assert address, f"the server did not start: {self.output[-2000:]}"
        self.url = address


def _begin(target: Callable[..., None], environment: dict[str, str], log: str, arguments: tuple[object, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(Path(log).parent)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    target(*arguments)


def _serve(boundary: str, times: int, port: int) -> None:
    counted = count(1)

    def reached(where: str) -> None:
        if where == boundary and next(counted) == times:
            os.kill(os.getpid(), signal.SIGKILL)

    serve.run(Settings(port=port), reached=reached)
