"""What is free, beside what the system says by other ways."""

from __future__ import annotations

import os

import torch
from gradwatch.probe.memory import fits, free_bytes, megabytes


def test_free_memory_is_some_and_no_more_than_the_machine_has() -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is None or 0 < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert free_bytes(torch.device("meta")) is None


def test_half_of_what_is_free_may_be_taken() -> None:
    assert fits(50, 100) and not fits(51, 100) and fits(10**18, None)


def test_sizes_are_said_as_people_read_them() -> None:
    assert megabytes(1_234_567_890) == "1,235 MB" and megabytes(40_000) == "0.04 MB"
