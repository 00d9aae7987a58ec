"""A store filled in this process, without sockets: frames straight into its writer, then rolled up and sealed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from gradwatch import frames
from gradwatch_server.settings import Settings
from gradwatch_server.store.store import Store

_IN_FLIGHT: Final = 16  # frames handed over and not committed


def fill(folder: Path, data: Iterable[bytes]) -> None:
    """Put frames, each ``bytes`` holding one or more, into the database of the GRADWATCH_DIR ``folder``.

    What the store does in the background goes on until the frames are in; the rest is left to the server's next start.
    """
    asyncio.run(_fill(Store(Settings(dir=folder, database="").database_url), data))


async def _fill(store: Store, data: Iterable[bytes]) -> None:
    await store.open()
    try:
        pending: deque[asyncio.Future[Any]] = deque()
        for part in data:
            view = memoryview(part)
            while len(view):
                frame = frames.decode(view)
                pending.append(store.writer.submit(frame, view[: frame.size]))
                view = view[frame.size :]
            while len(pending) > _IN_FLIGHT:
                await pending.popleft()
        await asyncio.gather(*pending)
    finally:
        await store.close()
