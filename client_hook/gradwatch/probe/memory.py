"""How much memory probing takes, and whether it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

COPIES: Final = 7  # of the trained weights beside the shadow: three of an update, three of a plane, one in passing
PATH_COPIES: Final = 4  # more for the trajectory plane
_SHARE: Final = 0.5  # of what is free that probing takes at most
_GROUP: Final = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be taken where ``device`` keeps its tensors; None: nobody knows."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    known = [size for size in (_free_of_machine(), _free_of_group()) if size is not None]
    return min(known, default=None)


def fits(needed: int, free: int | None) -> bool:
    """Whether probing may take so many bytes."""
    return free is None or needed <= _SHARE * free


def megabytes(size: int) -> str:
    """A size as it is said to people."""
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:.2g} MB"


def _free_of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
        return int(found[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def _free_of_group() -> int | None:
    """What the control group (a container's limit) leaves; file cache counts as free."""
    try:
        limit, used = (int((_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        return limit - used + int(counts.get("inactive_file", 0))
    except (OSError, ValueError):  # "max": there is no limit
        return None
