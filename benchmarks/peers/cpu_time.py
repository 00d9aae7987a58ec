"""CPU seconds of this process and of those beside it, by the kernel's own books (Linux)."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_QUIET_SECONDS: Final = 0.02  # in one second: what an idle server's timers use


def own() -> float:
    """User and system time of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def beside(servers: Iterable[int]) -> float:
    """User and system time of this process's children, ended or not, and of ``servers`` (process ids)."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + _of({*_descendants(), *servers})


def settle(servers: Iterable[int], most_seconds: float = 10.0) -> None:
    """Wait until the processes beside this one have done what was left to do."""
    until = time.monotonic() + most_seconds
    before = beside(servers)
    while time.monotonic() < until:
        time.sleep(1.0)
        now = beside(servers)
        if now - before <= _QUIET_SECONDS:
            return
        before = now


def _of(processes: Iterable[int]) -> float:
    ticks = 0
    for process in processes:
        if fields := _fields(process):
            ticks += sum(map(int, fields[11:15]))  # utime, stime, and the same of its ended children
    return ticks / _TICKS


def _descendants() -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    found = {os.getpid()}
    while grown := {process for process, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {os.getpid()}


def _fields(process: int) -> list[str]:
    """What follows the name in /proc/PID/stat; empty when the process is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []
