"""Delivering the spools of runs that have ended: ``gradwatch sync``. Needs no torch."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Final

import click

from gradwatch import frames
from gradwatch.connection import Connection, ConnectionFailed
from gradwatch.discovery import find_server
from gradwatch.leftovers import Leftover, leftovers
from gradwatch.sender import Delivery
from gradwatch.settings import Settings

_BATCH: Final = 256 << 10  # bytes a message
_PATIENCE: Final = 60.0  # seconds without any ack after which the server is given up


class SyncFailed(Exception):
    """Delivery was not possible; what is not delivered stays in its folder."""


def deliver_leftovers(directory: Path, settings: Settings) -> int:
    """Deliver every leftover spool in ``directory``; returns how many. Raises SyncFailed with a sentence."""
    if not directory.is_dir():
        raise SyncFailed(f"{directory} is no folder: name the spool, by default GRADWATCH_DIR/spool")
    waiting = list(leftovers(directory))
    delivered = 0
    try:
        if not waiting:
            return 0
        server = settings.server or find_server(settings.directory)
        if server is None:
            raise SyncFailed("no server found: start one with `gradwatch serve`, or name it with --server")
        shown = sum(spool.size for spool in waiting)
        with click.progressbar(length=shown, label="delivering", file=sys.stderr) as bar:
            for spool in list(waiting):
                size = spool.size
                done = _deliver(spool, server, settings.token)
                waiting.remove(spool)
                spool.close(delivered=done)
                delivered += done
                bar.update(size)
    except ConnectionFailed as error:
        raise SyncFailed(str(error)) from None
    finally:
        for spool in waiting:
            spool.close(delivered=False)
    return delivered


def _deliver(spool: Leftover, server: str, token: str | None) -> bool:
    delivery = Delivery()
    with Connection.open(server, token) as connection:
        threading.Thread(target=_listen, args=(connection, delivery, spool.writer), daemon=True).start()
        last = _send(spool, connection)
        done = _await_ack(delivery, connection, spool.writer, last)
    if spool.damaged:
        click.echo(f"{spool.folder}: {spool.damaged} damaged bytes at its end were left out", err=True)
    return done or delivery.deleted


def _send(spool: Leftover, connection: Connection) -> int:
    last, batch, size = -1, list[bytes](), 0
    for data in spool.frames():
        if size + len(data) > _BATCH:
            connection.send(b"".join(batch))
            batch, size = [], 0
        batch.append(data)
        size += len(data)
        last = max(last, _seq(data))
    if batch:
        connection.send(b"".join(batch))
    return last


def _seq(data: bytes) -> int:
    try:
        return int(frames.decode(data).header["seq"])
    except (frames.FrameError, KeyError, TypeError, ValueError):
        return -1


def _await_ack(delivery: Delivery, connection: Connection, writer: str, last: int) -> bool:
    """Wait until all up to ``last`` is on the server's disk, as long as acks keep coming."""
    through, until = delivery.through, time.monotonic() + _PATIENCE
    while delivery.through < last and not delivery.deleted and not delivery.again and time.monotonic() < until:
        delivery.changed.wait(0.2)
        delivery.changed.clear()
        for tombstone in delivery.take_tombstones(writer):
            connection.send(tombstone)
        if delivery.through > through:
            through, until = delivery.through, time.monotonic() + _PATIENCE
    return last >= 0 and delivery.through >= last


def _listen(connection: Connection, delivery: Delivery, writer: str) -> None:
    for answer in connection.answers():
        delivery.take(answer, writer)
