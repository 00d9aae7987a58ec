"""The seqs of frames that were sealed and are gone: duplicates of them are still known, and told from forgeries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from . import codec, tables
from .decode import Steps


async def remember(connection: AsyncConnection, writer: int, gone: Sequence[tuple[int, int]]) -> None:
    """Write down (seq, checksum) of frames that this transaction takes away."""
    if not gone:
        return
    seqs, sums = np.array(sorted(gone), np.int64).T
    counted = codec.encode(seqs[None], "successive")
    data = len(counted).to_bytes(4, "little") + counted + codec.encode(sums[None].astype("<u4"))
    row = {"writer": writer, "first_seq": int(seqs[0]), "last_seq": int(seqs[-1]), "data": data}
    await connection.execute(tables.sealed.insert(), [row])


async def load_seqs(connection: AsyncConnection, writer: int) -> Steps:
    """All seqs of a writer that were sealed, in no order."""
    c = tables.sealed.c
    rows = (await connection.scalars(select(c.data).where(c.writer == writer))).all()
    return np.concatenate([np.zeros(0, np.int64), *(_unpacked(data)[0] for data in rows)])


async def checksum_of(connection: AsyncConnection, writer: int, seq: int) -> int | None:
    """The checksum of a stored frame, sealed or not; None where there is no such frame."""
    f, c = tables.frames.c, tables.sealed.c
    hot: int | None = await connection.scalar(select(f.crc).where(f.writer == writer, f.seq == seq))
    if hot is not None:
        return hot
    mine = (c.writer == writer) & (c.first_seq <= seq) & (c.last_seq >= seq)
    for data in (await connection.scalars(select(c.data).where(mine))).all():
        seqs, sums = _unpacked(data)
        found = np.flatnonzero(seqs == seq)
        if len(found):
            return int(sums[found[0]])
    return None


def _unpacked(data: bytes) -> tuple[Steps, NDArray[np.uint32]]:
    end = 4 + int.from_bytes(data[:4], "little")
    return codec.decode(data[4:end])[0], codec.decode(data[end:])[0]
