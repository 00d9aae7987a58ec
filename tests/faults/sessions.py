"""One place to run the same faults in: a folder, a database of either kind, servers one after another, clients."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.forked import Forked, ForkedServer
from tests.faults.streaming_client import stream
from tests.faults.truth import Truth, check_database

# Ten faults of every kind by default; `make soak` asks for more, by this factor.
SOAK = int(os.environ.get("GRADWATCH_SOAK", "1"))


@dataclass(frozen=True)
class Session:
    """``database``: "" for a SQLite file in ``directory``, or the address of a PostgreSQL."""

    directory: Path
    database: str
    random: random.Random

    def server(self, boundary: str = "", times: int = 1, port: int = 0) -> ForkedServer:
        return ForkedServer(self.directory, self.database, boundary, times, port)

    def client(self, name: str = "run", pause: float = 0.02, cap: int = 1 << 30, server: str = "") -> Forked:
        """``server``: an address to stream to, instead of the server of this folder."""
        seed = self.random.randrange(2**32)
        said = {"GRADWATCH_SERVER": server} if server else {}
        log = self.directory / f"{name}.log"
        return Forked(stream, self.directory, log, str(self.directory / name), name, seed, pause, cap, **said)

    def truth(self, name: str = "run") -> Truth:
        return Truth(self.directory / name, name)

    def stop(self, client: Forked, name: str = "run", seconds: float = 40) -> None:
        """Have the client end by itself, with all delivered."""
        (self.directory / f"{name}.stop").touch()
        assert client.wait(seconds) == 0, client.output

    def check_database(self) -> None:
        """After the server's end."""
        if not self.database:
            check_database(self.directory)


def side_by_side(cells: Iterable[Callable[[], None]], most: int = 5) -> None:
    """Run all cells, ``most`` at a time: they wait, for servers to start and clients to come back, more than they work.

    The first failure is raised once all have ended.
    """
    with ThreadPoolExecutor(most) as pool:
        for done in [pool.submit(cell) for cell in cells]:
            done.result()


@contextmanager
def session(directory: Path, database: str, about: str) -> Iterator[Session]:
    """A session whose random choices are told, so that a failure can be played again; its folder goes if it ends well.

    A soak has hundreds of them.
    """
    seed = int(os.environ.get("GRADWATCH_FAULT_SEED") or random.SystemRandom().randrange(2**32))
    sys.stdout.write(f"{about}: GRADWATCH_FAULT_SEED={seed}\n")
    directory.mkdir(exist_ok=True)
    yield Session(directory, database, random.Random(seed))
    if SOAK > 1:
        shutil.rmtree(directory, ignore_errors=True)
