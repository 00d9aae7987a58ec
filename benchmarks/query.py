"""How long a server takes to answer, over HTTP, about runs of up to ten million steps.

A store is filled in this process; then a real ``gradwatch serve`` on it is asked by one client over one connection, in
milliseconds: p50 and p99 of each question. "layers": all layers reduced to at most 1,000 columns, as a frame; "one
series": the loss likewise, as JSON; "raw zoom": 1,000 steps one by one, of all layers and of the loss. Zooms are
stretches of the run at random places. "cold": the first answer of a server started anew, with the file gone from the
system's memory as far as that can be asked for.

    python -m benchmarks.query [--steps 100000] [--layers 1000] [--queries 100] [--flat 100000,1000000,10000000]

--flat: p99 on runs of --flat-layers layers and so many steps, beside the first; the bar is a ratio of at most 1.3.
1,000 layers x 1e6 steps take some 4 GB of disk and minutes to fill; --keep FOLDER keeps the stores for the next call.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.database import await_settled, file_bytes, free_bytes
from benchmarks.filling import fill
from benchmarks.machine import machine, percentiles
from benchmarks.peers.runs import end_by_terminating
from benchmarks.serving import address, server
from benchmarks.stream import Norms, Training, walking_norms

COLUMNS: Final = 1000
ZOOMS: Final = (1, 4, 16, 64, 256)  # the run's length by that of the stretch
COLD: Final = 5  # starts
RUN: Final = "query"
_POOL: Final = 2048  # steps of norms, gone through again and again; a tile holds 256
_FILL_BYTES: Final = 512 << 10  # of one frame
_SECONDS: Final = 3600
HEAD: Final = f"{'':34} {'p50 ms':>8} {'p99 ms':>8} {'cold ms':>8} {'kB':>8}"

Question = Callable[[random.Random], str]


@dataclass(frozen=True, slots=True)
class Size:
    """Of a run."""

    steps: int
    layers: int


@contextmanager
def serving(size: Size, keep: Path | None) -> Iterator[Path]:
    """A folder with such a run in its database, everything sealed; GRADWATCH_DIR points there."""
    name = f"query-{size.steps}-{size.layers}"
    folder = keep / name if keep else Path(tempfile.mkdtemp(prefix=f"gradwatch-{name}-"))
    os.environ["GRADWATCH_DIR"] = str(folder)
    try:
        if not (folder / "filled").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            begun = time.monotonic()
            fill(folder, _frames(size))
            with server(folder):
                await_settled(folder, _SECONDS)
            (folder / "filled").touch()
            points = size.steps * size.layers
            seconds = time.monotonic() - begun
            print(
                f"filled {size.steps} steps x {size.layers} layers in {seconds:.0f} s, "
                f"{(file_bytes(folder) - free_bytes(folder)) / points:.2f} bytes a point",
                file=sys.stderr,
                flush=True,
            )
        yield folder
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _frames(size: Size) -> Iterator[bytes]:
    training = Training(RUN, size.layers)
    pool: Norms = walking_norms(min(_POOL, size.steps), size.layers, 0)
    yield training.opening()
    yield from training.all_steps(size.steps, pool, max(1, _FILL_BYTES // (4 * size.layers + 100)))
    yield training.finish(size.steps - 1)


def questions(size: Size, run: str) -> dict[str, Question]:
    """What is asked, by name."""
    path = f"/api/runs/{run}"
    asked: dict[str, Question] = {}
    for zoom in ZOOMS:
        span = size.steps // zoom
        if span < COLUMNS:
            break
        part = "the whole run" if zoom == 1 else f"1/{zoom} of it"
        asked[f"layers, {part}"] = _stretch(f"{path}/layers?columns={COLUMNS}", size.steps, span)
        asked[f"one series, {part}"] = _stretch(f"{path}/series?names=loss&columns={COLUMNS}", size.steps, span)
    span = min(COLUMNS, size.steps)
    asked["raw zoom, layers"] = _stretch(f"{path}/layers?columns={COLUMNS}", size.steps, span)
    asked["raw zoom, one series"] = _stretch(f"{path}/series?names=loss&columns=0", size.steps, span)
    return asked


def _stretch(path: str, steps: int, span: int) -> Question:
    def ask(chance: random.Random) -> str:
        first = chance.randrange(steps - span + 1)
        return f"{path}&first={first}&last={first + span - 1}"

    return ask


class Asker:
    """Asks over one connection, which is kept."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def ask(self, path: str) -> tuple[float, int]:
        """Milliseconds until the whole answer is there, and its bytes."""
        begun = time.perf_counter()
        self._connection.request("GET", path, headers={"Accept": "*/*"})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path} was answered with {answer.status}: {body[:500]!r}")
        return (time.perf_counter() - begun) * 1e3, len(body)


def measure(folder: Path, size: Size, queries: int, cold: int = COLD) -> dict[str, tuple[float, float]]:
    """Print a line for each question; gives (p50, p99) by question."""
    run = Training(RUN, 1).run
    asked = questions(size, run)
    chance = random.Random(1)
    first = {name: [_cold(folder, question(chance)) for _ in range(cold)] for name, question in asked.items()}
    found: dict[str, tuple[float, float]] = {}
    with server(folder):
        asker = Asker(address(folder))
        for name, question in asked.items():
            answers = [asker.ask(question(chance)) for _ in range(queries + queries // 10 + 1)][queries // 10 + 1 :]
            found[name] = percentiles([milliseconds for milliseconds, _ in answers])
            size_kb = max(size for _, size in answers) / 1e3
            slow = f"{max(first[name]):8.1f}" if cold else f"{'':8}"
            print(f"{name:34} {found[name][0]:8.1f} {found[name][1]:8.1f} {slow} {size_kb:8.0f}", flush=True)
    return found


def _cold(folder: Path, path: str) -> float:
    """Milliseconds of the first answer of a server that was just started."""
    for file in folder.glob("gradwatch.db*"):
        with file.open("rb") as opened:
            os.fdatasync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with server(folder):
        asker = Asker(address(folder))
        asker.ask("/healthz")
        return asker.ask(path)[0]


def flatness(given: argparse.Namespace) -> None:
    """p99 of the whole run and of a raw zoom, by length."""
    found: dict[int, dict[str, tuple[float, float]]] = {}
    for steps in given.flat:
        size = Size(steps, given.flat_layers)
        with serving(size, given.keep) as folder:
            print(f"\n{steps} steps x {given.flat_layers} layers\n{HEAD}", flush=True)
            found[steps] = measure(folder, size, given.queries, cold=0)
    shortest, longest = min(found), max(found)
    print(f"\np99 at {longest} steps / at {shortest}")
    for name in found[shortest]:
        if name in found[longest]:
            print(f"{name:34} {found[longest][name][1] / found[shortest][name][1]:8.2f}", flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="0 (left out) to 10000000; default 100000")
    parser.add_argument("--layers", type=int, default=1000, help="1 to 16000; default 1000")
    parser.add_argument("--queries", type=int, default=100, help="of each question, 1 to 10000; default 100")
    parser.add_argument("--cold", type=int, default=COLD, help="starts a question, 0 to 100; default %(default)s")
    parser.add_argument("--flat", default="", help="numbers of steps, comma separated; default none")
    parser.add_argument("--flat-layers", type=int, default=20, help="1 to 1000; default 20")
    parser.add_argument("--keep", type=Path, help="a folder for the stores; default: a temporary one")
    given = parser.parse_args()
    given.flat = [int(number) for number in given.flat.split(",") if number]
    bounds = [(given.layers, 1, 16_000), (given.queries, 1, 10_000), (given.cold, 0, 100), (given.flat_layers, 1, 1000)]
    bounds += [(given.steps, 0, 10**7), *((number, 1000, 10**8) for number in given.flat)]
    if not all(low <= value <= high for value, low, high in bounds):
        parser.error("an argument is out of its bounds: see --help")
    return given


def main() -> None:
    given = options()
    end_by_terminating()
    load = os.getloadavg()[0]
    if given.steps:
        size = Size(given.steps, given.layers)
        with serving(size, given.keep) as folder:
            print(f"{given.steps} steps x {given.layers} layers, {COLUMNS} columns\n{HEAD}", flush=True)
            measure(folder, size, given.queries, given.cold)
    if given.flat:
        flatness(given)
    print(machine(("numpy", "sqlalchemy", "uvicorn"), load), file=sys.stderr)


if __name__ == "__main__":
    main()
