"""How long a step takes from the hook to the database's disk, and to who is watching: many runs at once.

--runs simulated trainings of --layers layers take --rate steps a second for --seconds, each over a socket of its own,
in --processes processes, with frames as the hook's. They send as its sender does: a watched run every step at once,
another all of its new steps once a second. --watched runs have a viewer each, who follows the last minute with all
layers. Measured are milliseconds from the moment at which a step would lie in the spool: to the ack (durable), and
until the viewer has the columns that it is in. The first --warm-up seconds do not count.

    python -m benchmarks.latency [--runs 200] [--rate 10] [--layers 1000] [--seconds 60] [--watched 20]

The bars: watched p99 50 ms to the disk and 150 ms to the viewer; unwatched 1.1 s; the server's memory flat.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Final

import numpy as np
from gradwatch import frames
from gradwatch.frames import SUBPROTOCOL, Kind
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from benchmarks.machine import machine, memory_bytes, percentiles
from benchmarks.peers.runs import end_by_terminating
from benchmarks.serving import address, cpu_seconds, server
from benchmarks.stream import Norms, Training, walking_norms

_PACE: Final = 1.0  # seconds between two sends of a run that nobody watches
_SPAN: Final = 60.0  # seconds that a viewer follows
_START_SECONDS: Final = 120
_LINGER: Final = 2.0  # seconds in which the last acks and columns may come
_POOL: Final = 256

Times = dict[int, float]  # step -> time.monotonic()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is simulated; handed to every process."""

    url: str
    runs: int
    rate: float
    layers: int
    seconds: float
    watched: int


@dataclass(slots=True)
class Simulated:
    """One training, and when its steps were there and acked."""

    training: Training
    norms: Norms
    created: Times = field(default_factory=dict)
    acked: Times = field(default_factory=dict)
    waiting: list[bytes] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    is_watched: bool = False
    has_ended: bool = False
    cut: str = ""
    """Why the server ended the connection, if it did."""

    async def run(self, plan: Plan, begin: float) -> None:
        """Take steps from ``begin`` on."""
        for step in range(int(plan.seconds * plan.rate)):
            await asyncio.sleep(begin + step / plan.rate - time.monotonic())
            self.created[step] = time.monotonic()
            self.waiting.append(self.training.steps(step, self.norms[step % len(self.norms)][None]))
            if self.is_watched:
                self.news.set()
        self.has_ended = True
        self.news.set()

    async def send(self, socket: ClientConnection) -> None:
        """Send what waits, as the hook's sender does: at once in a watched run, else every second."""
        while self.waiting or not self.has_ended:
            if self.waiting:
                data, self.waiting = b"".join(self.waiting), []
                with contextlib.suppress(ConnectionClosed):
                    await socket.send(data)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), _PACE)
            self.news.clear()

    async def listen(self, socket: ClientConnection, first_seq: int) -> None:
        """Note acks until the socket closes; step n is frame ``first_seq`` + n."""
        done = 0
        try:
            async for message in socket:
                now = time.monotonic()
                for answer in frames.decode_all(message if isinstance(message, bytes) else b""):
                    if answer.kind is Kind.REFUSE:
                        self.cut = f"refused: {answer.header['message']}"
                        return
                    self.is_watched = bool(answer.header["watched"])
                    steps = answer.header["through"] - first_seq + 1
                    self.acked |= dict.fromkeys(range(done, steps), now)
                    done = max(done, steps)
        except ConnectionClosed as error:
            self.cut = "" if self.has_ended else str(error)


def _connect(url: str, path: str) -> connect:
    address = url.replace("http", "ws", 1) + path
    return connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, max_size=None, proxy=None)


def name_of(number: int) -> str:
    """Of a run: every process knows them all."""
    return f"run {number}"


def train(numbers: Sequence[int], plan: Plan, barrier: Barrier, found: Queue[Any]) -> None:
    """A process of trainings."""
    asyncio.run(_train(numbers, plan, barrier, found))


async def _train(numbers: Sequence[int], plan: Plan, barrier: Barrier, found: Queue[Any]) -> None:
    norms = walking_norms(_POOL, plan.layers, 0)
    all_of = {number: Simulated(Training(name_of(number), plan.layers), norms) for number in numbers}
    sockets = {number: await _connect(plan.url, "/api/ingest") for number in numbers}
    async with asyncio.TaskGroup() as listeners:
        for number, simulated in all_of.items():
            await sockets[number].send(simulated.training.opening())
            listeners.create_task(simulated.listen(sockets[number], simulated.training.seq))
        await asyncio.to_thread(barrier.wait, _START_SECONDS)  # everybody is connected
        await asyncio.to_thread(barrier.wait, _START_SECONDS)  # viewers watch
        begin = time.monotonic() + 0.5
        async with asyncio.TaskGroup() as trainings:
            for at, (number, simulated) in enumerate(all_of.items()):
                phase = at / len(all_of) * _PACE  # as trainings that know nothing of each other
                trainings.create_task(simulated.run(plan, begin + phase))
                trainings.create_task(simulated.send(sockets[number]))
        await asyncio.sleep(_LINGER)
        for socket in sockets.values():
            await socket.close()
    found.put({number: (one.created, one.acked, one.cut) for number, one in all_of.items()})


def watch(plan: Plan, barrier: Barrier, found: Queue[Any]) -> None:
    """The process of the viewers; run 0 to ``plan.watched`` - 1 have one each."""
    asyncio.run(_watch(plan, barrier, found))


async def _watch(plan: Plan, barrier: Barrier, found: Queue[Any]) -> None:
    await asyncio.to_thread(barrier.wait, _START_SECONDS)
    seen: dict[int, Times] = {number: {} for number in range(plan.watched)}
    sockets = [await _connect(plan.url, "/api/live") for _ in seen]
    span = int(_SPAN * plan.rate)
    for number, socket in enumerate(sockets):
        run = frames.run_id("benchmark", name_of(number))
        wanted = {"type": "subscribe", "request": 1, "run": run, "follow": True, "span": span, "columns": span}
        await socket.send(json.dumps({**wanted, "layers": True}))
    await asyncio.sleep(1.0)
    async with asyncio.TaskGroup() as viewers:
        for number, socket in enumerate(sockets):
            viewers.create_task(_look(socket, seen[number]))
        await asyncio.to_thread(barrier.wait, _START_SECONDS)
        await asyncio.sleep(plan.seconds + _LINGER)
        for socket in sockets:
            await socket.close()
    found.put(seen)


async def _look(socket: ClientConnection, seen: Times) -> None:
    newest = -1
    with contextlib.suppress(ConnectionClosed):  # then its steps are never seen, which is told
        async for message in socket:
            now = time.monotonic()
            frame = frames.decode(message if isinstance(message, bytes) else b"")
            last = frame.header.get("last") if frame.kind in (Kind.SNAPSHOT, Kind.DELTA) else None
            if last is not None and frame.header["part"] == frame.header["parts"] - 1:
                seen |= dict.fromkeys(range(newest + 1, last + 1), now)
                newest = max(newest, last)


def measure(plan: Plan, processes: int, warm_up: float, pid: int) -> list[str]:
    """Simulate, and say what was seen."""
    context = multiprocessing.get_context("spawn")
    barrier, trained, viewed = context.Barrier(processes + 2), context.Queue(), context.Queue()
    children: list[Any] = [
        context.Process(target=train, args=(range(at, plan.runs, processes), plan, barrier, trained), daemon=True)
        for at in range(processes)
    ]
    children.append(context.Process(target=watch, args=(plan, barrier, viewed), daemon=True))
    for child in children:
        child.start()
    for _ in range(2):
        barrier.wait(_START_SECONDS)
    time.sleep(warm_up)
    memory, cpu, begun = memory_bytes(pid), cpu_seconds(pid), time.monotonic()
    time.sleep(max(0.0, plan.seconds - warm_up))
    after, used, seconds = memory_bytes(pid), cpu_seconds(pid) - cpu, time.monotonic() - begun
    times: dict[int, tuple[Times, Times, str]] = {}
    for _ in range(processes):
        times |= trained.get(timeout=_START_SECONDS)
    seen = viewed.get(timeout=_START_SECONDS)
    for child in children:
        child.join(10)
    cuts = [cut for _, _, cut in times.values() if cut]
    told = [f"{len(cuts)} of {plan.runs} connections WERE CUT: {cuts[0]}"] if cuts else []
    return [
        *_lines(plan, times, seen, warm_up),
        *told,
        f"server: {100 * used / max(seconds, 1e-9):.0f} % of a core, {memory / 1e6:.0f} MB at the beginning, "
        f"{after / 1e6:.0f} MB at the end",
    ]


def _lines(plan: Plan, times: dict[int, tuple[Times, Times, str]], seen: dict[int, Times], warm_up: float) -> list[str]:
    first = int(warm_up * plan.rate)
    watched = [number for number in times if number < plan.watched]
    groups = {
        "watched, to the disk": [(times[number][0], times[number][1]) for number in watched],
        "watched, to the viewer": [(times[number][0], seen[number]) for number in watched],
        "not watched, to the disk": [(one[0], one[1]) for number, one in times.items() if number >= plan.watched],
    }
    return [_line(title, pairs, first) for title, pairs in groups.items() if pairs]


def _line(title: str, pairs: Sequence[tuple[Times, Times]], first: int) -> str:
    waits = [end[step] - begin[step] for begin, end in pairs for step in begin if step >= first and step in end]
    missing = sum(step not in end for begin, end in pairs for step in begin if step >= first)
    middle, slow = percentiles(np.array(waits) * 1e3)
    worst = max(waits, default=float("nan")) * 1e3
    lost = f"  {missing} NEVER" if missing else ""
    return f"{title:26} {len(waits):8} {middle:9.1f} {slow:9.1f} {worst:9.1f}{lost}"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="1 to 2000; default 200")
    parser.add_argument("--rate", type=float, default=10.0, help="steps a second, 0.1 to 1000; default 10")
    parser.add_argument("--layers", type=int, default=1000, help="1 to 16000; default 1000")
    parser.add_argument("--seconds", type=float, default=60.0, help="1 to 86400; default 60")
    parser.add_argument("--watched", type=int, default=20, help="runs with a viewer, from 0 on; default 20")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds that do not count; default 5")
    parser.add_argument("--processes", type=int, default=2, help="of trainings, 1 to 16; default 2")
    given = parser.parse_args()
    bounds = [(given.runs, 1, 2000), (given.rate, 0.1, 1000), (given.layers, 1, 16_000), (given.seconds, 1, 86_400)]
    bounds += [(given.watched, 0, given.runs), (given.warm_up, 0, given.seconds), (given.processes, 1, 16)]
    if not all(low <= value <= high for value, low, high in bounds):
        parser.error("an argument is out of its bounds: see --help")
    return given


def main() -> None:
    given = options()
    end_by_terminating()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="gradwatch-latency-") as name:
        os.environ |= {"GRADWATCH_DIR": name}
        with server(Path(name)) as pid:
            plan = Plan(address(Path(name)), given.runs, given.rate, given.layers, given.seconds, given.watched)
            print(f"{given.runs} runs x {given.rate:g} steps/s x {given.layers} layers, {given.seconds:g} s")
            print(f"{'':26} {'steps':>8} {'p50 ms':>9} {'p99 ms':>9} {'worst ms':>9}", flush=True)
            print("\n".join(measure(plan, given.processes, given.warm_up, pid)))
    print(machine(("numpy", "sqlalchemy", "uvicorn", "websockets"), load), file=sys.stderr)


if __name__ == "__main__":
    main()
