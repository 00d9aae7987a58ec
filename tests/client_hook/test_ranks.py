"""Which process this is: by torch.distributed where it is there, else by the launcher's words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradwatch import ranks

dist: Any = torch.distributed  # whose stores its stubs do not know


@pytest.mark.parametrize(
    ("said", "rank", "size"),
    [({}, 0, 1), ({"RANK": "2", "WORLD_SIZE": "4"}, 2, 4), ({"RANK": "", "WORLD_SIZE": "many"}, 0, 1)],
)
def test_the_environments_words(said: dict[str, str], rank: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert (ranks.rank(), ranks.world_size()) == (rank, size)
    assert not ranks.can_talk() and ranks.shared_store() is None


def test_a_process_group_knows_better_and_gives_its_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "9")
    known = dist.HashStore()
    dist.init_process_group("gloo", store=known, rank=0, world_size=1)
    try:
        assert ranks.can_talk() and (ranks.rank(), ranks.world_size()) == (0, 1)
        ranks.shared_store().set("word", "told")
        assert ranks.shared_store().get("word") == b"told"
    finally:
        dist.destroy_process_group()
    assert ranks.shared_store() is None and ranks.rank() == 5
