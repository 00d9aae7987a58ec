from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from gradwatch_server.retention import Retention
from gradwatch_server.settings import Settings
from pydantic import ValidationError

from .store.opened import keep, opened
from .stream import Writer


def test_norms_go_when_they_are_old_enough(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as store:
            writer = Writer()
            await keep(store, writer.opening(), writer.steps(np.arange(1000)))
            await store.sealer.drain()
            end = 1e9 + 1000  # the test's steps take a second each, from 1e9 on
            assert await Retention(store, 1000, lambda: end).sweep() == 0
            assert await Retention(store, 400, lambda: end).sweep() == 2
            assert (await store.queries.view(writer.run)).thinned_to == 512

    asyncio.run(scenario())


def test_days_must_be_more_than_none() -> None:
    assert Settings().keep_raw_days is None
    with pytest.raises(ValidationError):
        Settings(keep_raw_days=0)
