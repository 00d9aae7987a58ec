"""Trainings that end in every way: ``exiting.py`` reads cells from its input and forks one training for each.

A cell is a line of JSON: ``way``, ``folder`` and ``environment``. What it forks has torch already, and from the fork
on is a script like any other: it trains, writes every step with its time to ``folder/steps``, and ends that ``way``.
On the output: ``{"pid": ...}``, and at its end ``{"pid": ..., "code": ..., "at": ...}``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gradwatch
import torch
from torch import nn

STEPS = 60


def main() -> None:
    torch.set_num_threads(1)
    # What a first step imports, and what the interpreter's end looks through: once for all that are forked.
    importlib.import_module("torch._dynamo")
    importlib.import_module("gradwatch.watching")
    gc.freeze()
    for line in sys.stdin:
        cell = json.loads(line)
        child = os.fork()
        if child == 0:
            become(cell)
            train(cell["way"], Path(cell["folder"]))
            return
        say({"pid": child})
        threading.Thread(target=await_end, args=(child,)).start()


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def await_end(child: int) -> None:
    _, status = os.waitpid(child, 0)
    say({"pid": child, "code": os.waitstatus_to_exitcode(status), "at": time.monotonic()})


def become(cell: dict[str, Any]) -> None:
    """What a shell would do before it starts a script."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(Path(cell["folder"]) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(cell["environment"])


def train(way: str, folder: Path) -> None:
    if way == "handler":
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(5))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = gradwatch.watch(model, optimizer, clip=1.0, project="exits", name=way)
    with open(folder / "steps", "wb", buffering=0) as file:
        while monitor.step < STEPS or way in ("sigint", "sigterm", "handler", "sigkill"):
            optimizer.zero_grad()
            loss = model(torch.ones(2, 4)).square().sum()
            loss.backward()
            step = monitor.step
            monitor.clip(loss)
            file.write(struct.pack("<qd", step, time.monotonic()))
            optimizer.step()
            time.sleep(0.01)
    if handlers != {number: signal.getsignal(number) for number in handlers}:
        raise AssertionError("a signal handler of the user's was changed")
    (folder / "ended").write_text(str(time.monotonic()))
    if way == "exception":
        raise ValueError("the user's own")
    if way == "sys_exit":
        sys.exit(3)
    if way == "os_exit":
        os._exit(7)


if __name__ == "__main__":
    main()
