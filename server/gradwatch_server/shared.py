"""What many viewers ask in the same moment, worked out once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

_T = TypeVar("_T")


class Shared:
    """Answers under way. A key must say all that its answer depends on, the state of the data included."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    async def get(self, key: Hashable, work_out: Callable[[], Awaitable[_T]]) -> _T:
        """The answer of ``work_out``, begun now or by another who asked for ``key`` and still waits."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(_awaited(work_out()))
            task.add_done_callback(lambda done: self._over(key, done))
        # One who goes away must not take the answer from the others.
        answer: _T = await asyncio.shield(task)
        return answer

    def _over(self, key: Hashable, done: asyncio.Task[Any]) -> None:
        del self._tasks[key]
        if not done.cancelled():
            done.exception()  # looked at, or asyncio complains where all who asked have gone


async def _awaited(answer: Awaitable[_T]) -> _T:
    return await answer
