"""A store filled in this process, without sockets: frames straight to its writer, judged and sealed as in a server."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from gradwatch import frames
from gradwatch_server.alerts import Judge
from gradwatch_server.settings import Settings
from gradwatch_server.store import tables
from gradwatch_server.store.store import Store
from sqlalchemy import func, select

_IN_FLIGHT: Final = 16  # frames handed over and not committed
_LOOK: Final = 32 << 20  # bytes between two looks at how far the sealer is behind
_MOST_MARKS: Final = 300  # of work that it has not done; a hot log much longer than a server's would stay in the file


def fill(folder: Path, data: Iterable[bytes]) -> None:
    """Put frames, each ``bytes`` holding one or more, into the database of the GRADWATCH_DIR ``folder``.

    What is not sealed when all are in is left to the server's next start.
    """
    asyncio.run(_fill(Store(Settings(dir=folder, database="").database_url), data))


async def _fill(store: Store, data: Iterable[bytes]) -> None:
    judge = Judge(store, lambda boundary: None, lambda: None, notify=False)
    await store.open()
    judging = asyncio.create_task(judge.run())
    try:
        await _put(store, data)
    finally:
        judging.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await judging
        await store.close()


async def _put(store: Store, data: Iterable[bytes]) -> None:
    pending: deque[asyncio.Future[Any]] = deque()
    size = 0
    for part in data:
        view = memoryview(part)
        while len(view):
            frame = frames.decode(view)
            pending.append(store.writer.submit(frame, view[: frame.size]))
            view = view[frame.size :]
        while len(pending) > _IN_FLIGHT:
            await pending.popleft()
        size += len(part)
        if size > _LOOK:
            size = 0
            while await _marks(store) > _MOST_MARKS:
                await asyncio.sleep(0.05)
    await asyncio.gather(*pending)


async def _marks(store: Store) -> int:
    async with store.engines.read.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(tables.dirty)) or 0
