"""This process's place among those that train one model together."""

from __future__ import annotations

import os
from typing import Any

import torch


def rank() -> int:
    """Number of this process, from 0 on."""
    return torch.distributed.get_rank() if can_talk() else _whole_number("RANK", 0)


def world_size() -> int:
    """How many processes there are."""
    return torch.distributed.get_world_size() if can_talk() else _whole_number("WORLD_SIZE", 1)


def can_talk() -> bool:
    """Whether torch.distributed connects the processes by now."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def shared_store() -> Any:
    """The key-value store by which the processes found each other; None where there is none, or no more.

    Do not keep it: the server within it would outlive its process group, and the next group on its port would find the
    last one's keys.
    """
    if not can_talk():
        return None
    from torch.distributed import distributed_c10d  # only where it is there: torch can be built without

    find = getattr(distributed_c10d, "_get_default_store", None)
    return None if find is None else find()


def _whole_number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else default
