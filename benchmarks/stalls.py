"""How long the hook's threads keep the interpreter from the training while a backlog goes to a live server.

The main thread spins and notes every gap between two of its turns, less what it spent waiting for a core. The control
spins for as long without a hook, and says what the machine alone takes. The rule of the design: at most 200 µs
at a time. A spinning thread is the worst case: a training leaves the interpreter at every call into torch.

    python -m benchmarks.stalls [--seconds 8] [--layers 200]
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

import numpy as np
from gradwatch import frames
from gradwatch.frames import Column, Kind
from gradwatch.sender import Sender
from gradwatch.spool import Spool

from benchmarks.serving import server

_LIMITS: Final = (200e-6, 500e-6, 1e-3, 2e-3, 4e-3)  # seconds
_ROWS: Final = 3


def frames_of(writer: str, layers: int) -> Iterator[tuple[bytes, bool]]:
    """The frames of a run without end, and which of them are its preamble."""
    hello = {"project": "stalls", "run": writer, "launch": writer, "started_at": time.time()}
    yield frames.encode(Kind.HELLO, {"writer": writer, "seq": 0, **hello}), True
    columns = [Column("step", "i8"), Column("time", "f8"), Column("loss", "f8"), Column("grad_norm", "f4", layers)]
    said = [column.as_json() for column in columns]
    table = [[f"layer{number}", [2], 2, number] for number in range(layers)]
    name = frames.table_hash(None, table, said)
    head = {"table": name, "base": None, "layers": table, "columns": said}
    yield frames.encode(Kind.LAYERS, {"writer": writer, "seq": 1, **head}), True
    values = np.random.default_rng(1).lognormal(size=(_ROWS, layers)).astype("<f4").tobytes()
    for seq in range(2, 1 << 40):
        steps = struct.pack(f"<{_ROWS}q", *range(_ROWS * seq, _ROWS * seq + _ROWS))
        body = [steps, bytes(8 * _ROWS), bytes(8 * _ROWS), values]
        yield frames.encode(Kind.STEPS, {"writer": writer, "seq": seq, "table": name, "rows": _ROWS}, body), False


def backlog(folder: Path, size: int, layers: int) -> Spool:
    """A spool with ``size`` bytes that wait."""
    spool = Spool(folder / "spool", secrets.token_hex(16), 1 << 30)
    for seq, (data, preamble) in enumerate(frames_of(spool.writer, layers)):
        spool.append(data, seq, preamble=preamble)
        if spool.size >= size:
            return spool
    raise AssertionError("frames have no end")


def gaps(seconds: float) -> list[float]:
    """Seconds for which the thread that spins here had to wait for the interpreter, one for each gap in its turns.

    What it spent ready to run while other processes had the cores is taken off (Linux says it), for it is not ours.
    """
    found = []
    with open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as file:
        waited = _ready_seconds(file)
        until = before = time.perf_counter()
        until += seconds
        while before < until:
            now = time.perf_counter()
            if now - before > _LIMITS[0]:
                by_now = _ready_seconds(file)
                found.append(now - before - (by_now - waited))
                waited, now = by_now, time.perf_counter()
            before = now
    return found


def _ready_seconds(file: TextIO) -> float:
    file.seek(0)
    return int(file.read().split()[1]) * 1e-9


def line(name: str, found: list[float], seconds: float) -> str:
    counts = "".join(f"{sum(gap > limit for gap in found) / seconds:>12.1f}" for limit in _LIMITS)
    return f"{name:<22}{counts}{max(found, default=0.0) * 1e3:>12.2f}"


@contextmanager
def server_at(folder: Path) -> Iterator[str]:
    """The address of a server on ``folder``."""
    os.environ["GRADWATCH_DIR"] = str(folder)
    with server(folder):
        yield str(json.loads((folder / "server.json").read_text())["url"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--layers", type=int, default=200)
    options = parser.parse_args()
    print("gaps a second longer than " + "".join(f"{limit * 1e6:>9.0f} us" for limit in _LIMITS) + "  longest, ms")
    with tempfile.TemporaryDirectory() as folder, server_at(Path(folder)) as address:
        spool = backlog(Path(folder), 100 << 20, options.layers)
        print(line("nothing", gaps(options.seconds), options.seconds))
        sender = Sender(spool, find=lambda: address, token=None, on_server=lambda url: None, last_step=lambda: 0)
        sender.start()
        begun = time.perf_counter()
        found = gaps(options.seconds)
        seconds = time.perf_counter() - begun
        print(line("a backlog being sent", found, seconds))
        print(f"{sender.delivery.through} frames of {spool.last + 1} were acked meanwhile")
        sender.close(0, time.monotonic())
        spool.close(delivered=True)


if __name__ == "__main__":
    main()
