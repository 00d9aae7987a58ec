"""Viewers that stall cost nobody anything: they are cut, the others are served, and the server's memory stays."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.faults.forked import ForkedServer
from tests.faults.watching import Stalled, Viewers
from tests.server.stream import Socket, Writer

HEALTHY, STALLED = 100, 10
CLOSED_SECONDS = 10.0  # after the stalled one's window is full
MOST_GROWTH = 4 << 20  # bytes of the server's memory for each stalled viewer
LAYERS = 1000


def store_large_run(server: ForkedServer, steps: int = 1000) -> str:
    """A finished run whose snapshot with all layers has about 20 MB."""
    writer = Writer([f"layer.{number}" for number in range(LAYERS)], run="large")
    with Socket(server.url, "/api/ingest") as socket:
        socket.store(writer, writer.opening())
        rows = np.random.default_rng(1).random((steps, LAYERS)).astype("<f4")
        for first in range(0, steps, 50):
            socket.store(writer, writer.steps(np.arange(first, first + 50), rows[first : first + 50]))
        socket.store(writer, writer.finish())
    return writer.run


@contextmanager
def streaming(server: ForkedServer, pause: float = 0.05) -> Iterator[Writer]:
    """A live run of 20 layers, a step every ``pause`` seconds."""
    writer = Writer([f"layer.{number}" for number in range(20)], run="live")
    over = threading.Event()

    def stream() -> None:
        with Socket(server.url, "/api/ingest") as socket:
            socket.store(writer, writer.opening())
            step = 0
            while not over.wait(pause):
                socket.send(writer.steps([step]))
                step += 1

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        server.await_json("/api/runs", lambda found: any(run["last_step"] for run in found["runs"]))
        yield writer
    finally:
        over.set()
        thread.join()


def open_ports(server: ForkedServer) -> set[int]:
    """The other side's ports of the server's open connections."""
    return {found.raddr.port for found in psutil.Process(server.pid).net_connections("tcp") if found.raddr}


def p95(gaps: list[tuple[float, float]], since: float, until: float) -> float:
    chosen = [gap for moment, gap in gaps if since <= moment < until]
    return float(np.percentile(chosen, 95)) if chosen else float("nan")


@pytest.mark.timeout(240)
def test_a_hundred_healthy_viewers_beside_ten_that_stall(tmp_path: Path) -> None:
    with ForkedServer(tmp_path) as server:
        large = store_large_run(server)
        memory = psutil.Process(server.pid).memory_info
        with ExitStack() as stack:
            writer = stack.enter_context(streaming(server))
            healthy = stack.enter_context(Viewers(server.url, writer.run, HEALTHY))
            before = time.monotonic()
            time.sleep(4)
            begun, resident = time.monotonic(), memory().rss
            runs = [large, writer.run] * (STALLED // 2)
            stalled = [stack.enter_context(Stalled(server.url, run)) for run in runs]
            ports, highest = {one.port for one in stalled}, resident
            closed: dict[int, float] = {}  # by port, after how many seconds
            assert ports <= open_ports(server)
            while ports - set(closed) and time.monotonic() - begun < CLOSED_SECONDS + 10:
                highest = max(highest, memory().rss)
                gone = ports - open_ports(server) - set(closed)
                closed |= dict.fromkeys(gone, time.monotonic() - begun)
                time.sleep(0.1)
            until = time.monotonic()
            growth = (highest - resident) / STALLED
            alone, beside = p95(healthy.gaps, before, begun), p95(healthy.gaps, begun, until)
            sys.stdout.write(f"closed after {[round(seconds, 1) for seconds in sorted(closed.values())]} s\n")
            sys.stdout.write(f"{growth / (1 << 20):.2f} MiB each; between deltas, p95: {alone:.2f} s, {beside:.2f} s\n")
            assert set(closed) == ports and max(closed.values()) < CLOSED_SECONDS
            assert growth < MOST_GROWTH
            newest = server.get(f"/api/runs/{writer.run}")["last_step"]
            deadline = time.monotonic() + 10
            while min(healthy.last_steps) < newest:
                assert time.monotonic() < deadline, sorted(healthy.last_steps)[:5]
                time.sleep(0.1)
        assert "Traceback" not in server.output, server.output[-3000:]
