"""What ``monitor.clip`` costs beside ``torch.nn.utils.clip_grad_norm_``: spool on disk, live server, sender at work.

Ratios of interleaved runs in one process: per round each contender clips the same gradients once, in turning order,
freshly written as a backward pass would leave them. fp32, p = 2, nothing clipped. The second contender of torch is the
A/A control: its ratio to the first shows what the machine alone makes of equal work. The last four columns are CPU
seconds over all rounds: the calls themselves, the threads that record and send, and the server.

    python benchmarks/hook.py [--rounds 1500] [--widths 168,256,384] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

TENSORS = (48, 144, 288)


@contextmanager
def server(directory: Path) -> Iterator[int]:
    """A real server on a port of its own; gives its process id."""
    command = [sys.executable, "-m", "gradwatch.cli", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if (directory / "server.json").exists():
            break
        time.sleep(0.05)
    try:
        yield json.loads((directory / "server.json").read_text())["pid"]
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def beside_seconds() -> float:
    """CPU seconds of this process's other threads: those that record and send."""
    return time.process_time() - time.thread_time()


def measure(tensors: int, width: int, rounds: int, server_pid: int) -> str:
    """One row of the table."""
    import gradwatch

    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(width, width) for _ in range(tensors // 2)])
    parameters = list(model.parameters())
    source = [torch.randn_like(parameter) * 1e-4 for parameter in parameters]
    loss = torch.tensor(1.0)
    monitor = gradwatch.watch(model, clip=1e3, project="benchmark", name=f"{tensors} tensors, width {width}")
    contenders: list[Callable[[], object]] = [
        lambda: torch.nn.utils.clip_grad_norm_(parameters, 1e3),
        lambda: monitor.clip(loss),
        lambda: torch.nn.utils.clip_grad_norm_(parameters, 1e3),
    ]
    times: list[list[float]] = [[] for _ in contenders]
    server_before, beside_before = cpu_seconds(server_pid), beside_seconds()
    for number in range(rounds):
        for turn in range(len(contenders)):
            which = (number + turn) % len(contenders)
            for parameter, gradient in zip(parameters, source, strict=True):
                parameter.grad = gradient.clone()
            begun = time.perf_counter()
            contenders[which]()
            times[which].append(time.perf_counter() - begun)
    monitor.finish()
    beside = beside_seconds() - beside_before
    theirs, ours, control = (statistics.median(series) * 1e6 for series in times)
    server_used = cpu_seconds(server_pid) - server_before
    size = sum(parameter.numel() for parameter in parameters) / 1e6
    return (
        f"{tensors:7} {size:8.1f} {theirs:9.0f} {ours:9.0f} {ours / theirs:7.3f} {control / theirs:7.3f}"
        f" {sum(times[0]):8.2f} {sum(times[1]):8.2f} {beside:9.2f} {server_used:8.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=1500)
    parser.add_argument("--widths", default="168,256,384")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as directory:
        os.environ["GRADWATCH_DIR"] = directory
        print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, {arguments.threads} thread(s)")
        print("tensors  Mparams  torch us   ours us   ratio     A/A  torch s   ours s threads s server s")
        with server(Path(directory)) as pid:
            for width in map(int, arguments.widths.split(",")):
                for tensors in TENSORS:
                    print(measure(tensors, width, arguments.rounds, pid), flush=True)


if __name__ == "__main__":
    main()
