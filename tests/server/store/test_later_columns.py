"""Columns that hooks send since a later version, beside frames of hooks that do not."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from ..stream import LATER, Writer
from .opened import keep, opened

STEPS = 600


def test_who_left_steps_out_can_be_counted_in_every_column(database: str) -> None:
    chance = np.random.default_rng(11)
    skipped = chance.choice([0, 1, 2], STEPS, p=[0.8, 0.05, 0.15])
    names = ["skipped", "overflowed"]

    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer()
            writer.series |= LATER
            await keep(store, writer.opening())
            for start in range(0, STEPS, 50):
                steps = np.arange(start, start + 50)
                assert await keep(store, writer.steps(steps, skipped=skipped[steps])) == ["ok"]
            view = await store.queries.view(writer.run)
            known = await store.queries.series_names(view)
            assert known[-4:] == ["skipped", "overflowed", "clip_cosine", "sample_seconds"]
            for drained in (False, True):
                if drained:
                    await store.sealer.drain()
                for width in (1, 32, 64, 256, 1024):
                    found = (await store.queries.reduce(view, 0, STEPS - 1, width, names=names)).scalars
                    for at in range(len(found.count)):
                        mine = skipped[at * width : (at + 1) * width]
                        in_all, overflowed = np.rint(found.mean()[at] * found.count[at])
                        assert (overflowed, in_all - 2 * overflowed) == ((mine == 2).sum(), (mine == 1).sum())
            page = await store.queries.raw(view, 0, STEPS - 1, names, STEPS)
            assert page.values[:, 0].tolist() == skipped.tolist()
            assert page.values[:, 1].tolist() == (skipped == 2).tolist()

    asyncio.run(scenario())


def test_an_older_attempt_without_the_columns_has_none_and_a_newer_one_goes_on(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            old, new = Writer(), Writer(start_step=64)
            new.series |= LATER
            await keep(store, old.opening(), old.steps(np.arange(64), loss=1.0))
            assert "skipped" not in await store.queries.series_names(await store.queries.view(old.run))
            values: dict[str, Any] = {"skipped": 2, "clip_cosine": 0.5, "sample_seconds": 0.25}
            await keep(store, new.opening(), new.steps(np.arange(64, 128), **values))
            view = await store.queries.view(old.run)
            for _ in range(2):
                found = (await store.queries.reduce(view, 0, 127, 64, names=[*values, "overflowed"])).scalars
                assert found.count.tolist() == [[0] * 4, [64] * 4]
                assert found.mean()[1].tolist() == [*values.values(), 1]
                await store.sealer.drain()

    asyncio.run(scenario())
