"""What a measurement was made on, and what a process uses (Linux)."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def machine(libraries: Sequence[str], load_before: float) -> str:
    """One line: processor, system, versions, how busy the machine was."""
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {versions}; "
        f"load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def memory_bytes(process: int) -> int:
    """Of a process, as it lies in memory now."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def percentiles(values: Any) -> tuple[float, float]:
    """Median and 99th percentile; NaN of nothing."""
    if not len(values):
        return float("nan"), float("nan")
    middle, slow = np.percentile(values, [50, 99], method="higher")
    return float(middle), float(slow)
