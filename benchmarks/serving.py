"""A real server beside a measurement, and what it uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server(directory: Path) -> Iterator[int]:
    """A server on a port of its own over GRADWATCH_DIR, which must be ``directory``; gives its process id."""
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


def address(directory: Path) -> str:
    """Where the server over GRADWATCH_DIR is."""
    return str(json.loads((directory / "server.json").read_text())["url"])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def beside_seconds() -> float:
    """CPU seconds of this process's other threads: those that record and send."""
    return time.process_time() - time.thread_time()
