"""What ``monitor.clip`` costs while its server is gone, beside what it costs while the server answers.

One training, one process; what is behind its server's port changes every few seconds: the server, nobody (refused), or
a network that swallows everything (blackholed). Healthy periods lie between all others, so that each is compared with
those beside it; the A/A control compares every second healthy period with the others.

    python -m benchmarks.outage [--rounds 6] [--seconds 3] [--width 128]
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving import server
from tests.network import Network

SETTLED: Final = 0.3  # seconds of a period that are left out: the change itself
PERIODS: Final = ("healthy", "refused", "healthy again", "blackholed")
RECORD: Final = struct.Struct("<dd")  # when a clip began (monotonic seconds), and its seconds


def train(log: str, stop: str, width: int) -> None:
    """The training: small, so that what surrounds a clip is a large part of it. Logs every clip."""
    import gradwatch
    import torch
    from torch import nn

    torch.set_num_threads(1)
    model = nn.Sequential(*[nn.Linear(width, width) for _ in range(24)])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    monitor = gradwatch.watch(model, optimizer, clip=1.0, project="outage")
    inputs = torch.randn(8, width)
    with open(log, "wb") as file:
        while not os.path.exists(stop):
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            begun = time.perf_counter()
            monitor.clip(loss)
            seconds = time.perf_counter() - begun
            file.write(RECORD.pack(time.monotonic(), seconds))
            optimizer.step()
    monitor.finish()


def measure(rounds: int, seconds: float, width: int) -> dict[str, NDArray[np.float64]]:
    """Seconds of each clip, by what the server was then."""
    spans: list[tuple[str, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADWATCH_DIR"] = folder
        log, stop = str(Path(folder, "clips")), str(Path(folder, "stop"))
        with server(Path(folder)), Network(("127.0.0.1", _port(Path(folder)))) as network:
            command = [sys.executable, "-m", "benchmarks.outage", "--train", log, stop, "--width", str(width)]
            training = subprocess.Popen(command, env=os.environ | {"GRADWATCH_SERVER": network.url})
            try:
                while not os.path.exists(log) or network.connections < 1:
                    time.sleep(0.1)
                time.sleep(2)
                for period in PERIODS * rounds:
                    network.heal()
                    if period == "refused":
                        network.refuse()
                    elif period == "blackholed":
                        network.mode = "hold"
                    begun = time.monotonic()
                    time.sleep(seconds)
                    spans.append((period, begun + SETTLED, time.monotonic()))
                network.heal()
            finally:
                Path(stop).touch()
                training.wait(60)
        clips = np.frombuffer(Path(log).read_bytes(), "<f8").reshape(-1, 2)
    when, took = clips[:, 0], clips[:, 1]
    return {
        period: np.concatenate([took[(when >= low) & (when < high)] for name, low, high in spans if name == period])
        for period in PERIODS
    }


def _port(folder: Path) -> int:
    address: str = json.loads((folder / "server.json").read_text())["url"]
    return int(address.rpartition(":")[2])


def report(found: dict[str, NDArray[np.float64]]) -> None:
    """A table of milliseconds; differences are to both healthy kinds of periods together."""
    healthy = np.concatenate([found["healthy"], found["healthy again"]])
    print("server          clips   p50 ms   p99 ms p99.9 ms   max ms  p99.9 - healthy")
    for period, seconds in found.items():
        shown = [float(np.quantile(seconds, q)) * 1e3 for q in (0.5, 0.99, 0.999, 1.0)]
        difference = shown[2] - float(np.quantile(healthy, 0.999)) * 1e3
        columns = " ".join(f"{value:8.3f}" for value in shown)
        print(f"{period:14} {len(seconds):6d} {columns}  {difference:+15.3f}")
    print("(healthy against healthy again is the A/A control; the bar is +1 ms)")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--train", nargs=2, metavar=("LOG", "STOP"), help=argparse.SUPPRESS)
    said = parser.parse_args(arguments)
    if said.train:
        log, stop = said.train
        train(log, stop, said.width)
    else:
        report(measure(said.rounds, said.seconds, said.width))


if __name__ == "__main__":
    main(sys.argv[1:])
