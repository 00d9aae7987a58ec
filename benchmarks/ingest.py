"""How many points a second a server takes in: from the first byte sent until all is durable, rolled up and sealed.

A real ``gradwatch serve`` on SQLite, and so many processes that each stream a run of 4,000 layers to it, in frames
built beforehand, as the hook's sender does: messages of 128 KiB, at most 8 MiB not acked. A point is one layer's norm
at one step. "Durable" counts until the last ack only. CPU seconds are those of the whole work, "MB" the size of the
database once the server has ended, "B/point" the same without the pages that the hot log has left free. Every case is
measured --repeats times: what the lines of one case lie apart is the machine's doing.

    python -m benchmarks.ingest [--steps 2048] [--layers 4000] [--writers 1,4] [--repeats 2] [--peers]

--peers: the same values logged by TensorBoard, W&B offline and Trackio, each in a process of its own from the first log
to the end of its ``finish``, as fast as it takes them. They are installed into --environment (see benchmarks.peers).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Final

from benchmarks.database import await_settled, file_bytes, free_bytes
from benchmarks.delivery import deliver, messages
from benchmarks.machine import machine
from benchmarks.peers.environment import ROOT, clean, default_folder, prepare
from benchmarks.peers.ingesting import PEERS
from benchmarks.peers.runs import ALONE, end_by_terminating, kept_bytes
from benchmarks.serving import address, cpu_seconds, server
from benchmarks.stream import Training, walking_norms

POOL: Final = 1024  # steps of norms, gone through again and again; a tile holds 256
_SECONDS: Final = 600
HEAD: Final = (
    f"{'':24} {'points':>12} {'M points/s':>10} {'durable':>8} {'server s':>8} {'client s':>8} {'MB':>8} {'B/point':>8}"
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one case took. Seconds, and bytes on disk."""

    title: str
    points: int
    seconds: float
    durable: float
    server_cpu: float
    client_cpu: float
    bytes: int
    free: int

    def line(self) -> str:
        kept = (self.bytes - self.free) / self.points
        durable = f"{self.points / self.durable / 1e6:8.2f}" if self.durable else f"{'':8}"
        return (
            f"{self.title:24} {self.points:12} {self.points / self.seconds / 1e6:10.2f} {durable} "
            f"{self.server_cpu:8.2f} {self.client_cpu:8.2f} {self.bytes / 1e6:8.1f} {kept:8.2f}"
        )


def ingest(writers: int, layers: int, steps: int) -> Result:
    """One case: an empty database, a server, ``writers`` processes."""
    with tempfile.TemporaryDirectory(prefix="gradwatch-ingest-") as name:
        folder = Path(name)
        os.environ |= {"GRADWATCH_DIR": name}
        context = multiprocessing.get_context("spawn")
        barrier, found = context.Barrier(writers + 1), context.Queue()
        with server(folder) as pid:
            arguments = (address(folder), layers, steps, barrier, found)
            processes = [context.Process(target=_write, args=(at, *arguments), daemon=True) for at in range(writers)]
            for process in processes:
                process.start()
            barrier.wait(_SECONDS)
            before = cpu_seconds(pid)
            results = [found.get(timeout=_SECONDS) for _ in processes]
            settled = await_settled(folder, _SECONDS)
            used = cpu_seconds(pid) - before
            for process in processes:
                process.join(10)
        begun, ended = min(result[0] for result in results), max(result[1] for result in results)
        client = sum(result[2] for result in results)
        title = f"gradwatch, {writers} writer{'s' if writers > 1 else ''}"
        points = writers * layers * steps
        size = file_bytes(folder), free_bytes(folder)
        return Result(title, points, settled - begun, ended - begun, used, client, *size)


def _write(
    number: int, url: str, layers: int, steps: int, barrier: Barrier, found: Queue[tuple[float, float, float]]
) -> None:
    training = Training(f"run {number}", layers)
    parts = list(messages(_frames(training, layers, steps, number)))
    barrier.wait(_SECONDS)
    before = time.process_time()
    begun, ended = deliver(url, parts)
    found.put((begun, ended, time.process_time() - before))


def _frames(training: Training, layers: int, steps: int, seed: int) -> Iterator[bytes]:
    yield training.opening()
    yield from training.all_steps(steps, walking_norms(min(POOL, steps), layers, seed))
    yield training.finish(steps - 1)


def log_by(peer: str, python: str, layers: int, steps: int) -> Result:
    """The same values, logged by ``peer`` in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="gradwatch-ingest-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "kept"
        folder.mkdir()
        out = Path(name) / "measured.json"
        settings = {**clean(os.environ), **ALONE, "PYTHONPATH": f"{ROOT}:{ROOT / 'client_hook'}", "HOME": name}
        settings |= {"TRACKIO_DIR": str(folder)}
        command = [python, "-m", "benchmarks.peers.ingesting", peer, str(folder), "--out", str(out)]
        command += ["--layers", str(layers), "--steps", str(steps)]
        done = subprocess.run(command, env=settings, cwd=name, capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode:
            raise SystemExit(f"{peer} failed:\n{done.stderr[-3000:]}")
        said: dict[str, Any] = json.loads(out.read_text())
        title = f"{PEERS[peer]} {said['version']}"
        return Result(title, layers * steps, said["seconds"], 0.0, said["beside"], said["cpu"], kept_bytes(folder), 0)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2048, help="of each run, 1 to 1000000; default 2048")
    parser.add_argument("--layers", type=int, default=4000, help="1 to 16000; default 4000")
    parser.add_argument("--writers", default="1,4", help="comma separated, each 1 to 64; default 1,4")
    parser.add_argument("--repeats", type=int, default=2, help="1 to 20; default 2")
    parser.add_argument("--peers", action="store_true", help="also measure TensorBoard, W&B and Trackio")
    parser.add_argument("--peer-steps", type=int, default=100, help="1 to 100000; default 100")
    parser.add_argument("--environment", type=Path, default=default_folder(), help="default: %(default)s")
    given = parser.parse_args()
    given.writers = [int(number) for number in given.writers.split(",")]
    bounds = [(given.steps, 10**6), (given.layers, 16_000), (given.repeats, 20), (given.peer_steps, 10**5)]
    if not all(1 <= value <= most for value, most in [*bounds, *((number, 64) for number in given.writers)]):
        parser.error("an argument is out of its bounds: see --help")
    return given


def main() -> None:
    given = options()
    end_by_terminating()
    load = os.getloadavg()[0]
    python = prepare(given.environment.expanduser().absolute()) if given.peers else ""
    print(HEAD, flush=True)
    for _ in range(given.repeats):
        for writers in given.writers:
            print(ingest(writers, given.layers, given.steps).line(), flush=True)
        for peer in PEERS if given.peers else ():
            print(log_by(peer, python, given.layers, given.peer_steps).line(), flush=True)
    print(machine(("numpy", "sqlalchemy", "uvicorn", "websockets"), load), file=sys.stderr)


if __name__ == "__main__":
    main()
