"""One answer for all who ask in the same moment."""

from __future__ import annotations

import asyncio

import pytest
from gradwatch_server.shared import Shared


def test_an_answer_is_worked_out_once_for_all_who_wait_and_anew_for_those_who_come_later() -> None:
    begun = 0

    async def work_out() -> int:
        nonlocal begun
        begun += 1
        number = begun
        await asyncio.sleep(0.01)
        return number

    async def scenario() -> None:
        shared = Shared()
        assert await asyncio.gather(*(shared.get("a", work_out) for _ in range(10))) == [1] * 10
        assert await shared.get("a", work_out) == 2
        assert await asyncio.gather(*(shared.get(key, work_out) for key in "ab")) == [3, 4]

    asyncio.run(scenario())


def test_one_who_goes_away_takes_nothing_from_the_others() -> None:
    async def scenario() -> None:
        shared, go = Shared(), asyncio.Event()

        async def work_out() -> str:
            await go.wait()
            return "done"

        first, second = (asyncio.create_task(shared.get("a", work_out)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        go.set()
        assert await second == "done" and first.cancelled()

    asyncio.run(scenario())


def test_a_failure_is_everybodys_and_is_forgotten() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    async def succeed() -> str:
        return "yes"

    async def scenario() -> None:
        shared = Shared()
        for answer in await asyncio.gather(*(shared.get("a", fail) for _ in range(2)), return_exceptions=True):
            assert isinstance(answer, ValueError)
        with pytest.raises(ValueError):
            await shared.get("a", fail)
        assert await shared.get("a", succeed) == "yes"

    asyncio.run(scenario())
