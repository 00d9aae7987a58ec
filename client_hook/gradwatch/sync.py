"""Delivering the spools of runs that have ended: ``gradwatch sync``. Needs no torch."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from gradwatch.connection import Connection, ConnectionFailed
from gradwatch.delivery import Delivery, Flight
from gradwatch.discovery import find_server
from gradwatch.leftovers import Leftover, leftover, size_of, writers_in
from gradwatch.settings import Settings

_BATCH: Final = 128 << 10  # bytes a message
_IN_FLIGHT: Final = 8 << 20  # bytes sent and not acked
_PATIENCE: Final = 60.0  # seconds without any ack after which the server is given up


class SyncFailed(Exception):
    """Delivery was not possible; what is not delivered stays in its folder."""


@dataclass(slots=True)
class Synced:
    """What became of the spools in a folder."""

    delivered: int = 0
    kept: int = 0
    """Spools that the server did not take whole."""
    living: int = 0
    """Spools whose writers live, or that somebody else is delivering."""


def deliver_leftovers(directory: Path, settings: Settings) -> Synced:
    """Deliver every leftover spool in ``directory``. Raises SyncFailed with a sentence."""
    if not directory.is_dir():
        raise SyncFailed(f"{directory} is no folder: name the spool, by default GRADWATCH_DIR/spool")
    found, synced = writers_in(directory), Synced()
    if not found:
        return synced
    sizes = {folder: size_of(folder) for folder in found}
    with click.progressbar(length=sum(sizes.values()), label="delivering", file=sys.stderr) as bar:
        server: str | None = None
        for folder in found:
            spool = leftover(folder)
            if spool is None:
                synced.living += 1
                bar.update(sizes[folder])
                continue
            server = server or _server(settings, spool)
            if _deliver_one(spool, server, settings.token, bar.update):
                synced.delivered += 1
            else:
                synced.kept += 1
    return synced


def _server(settings: Settings, spool: Leftover) -> str:
    server = settings.server or find_server(settings.directory)
    if server is None:
        spool.close(delivered=False)
        raise SyncFailed("no server found: start one with `gradwatch serve`, or name it with --server")
    return server


def _deliver_one(spool: Leftover, server: str, token: str | None, progress: Callable[[int], None]) -> bool:
    done = False
    if 0 not in spool.preamble_seqs:
        click.echo(f"{spool.folder}: its hello is damaged, and no server takes frames without one", err=True)
        spool.close(delivered=False)
        return False
    try:
        with Connection.open(server, token) as connection:
            done = _Transfer(spool, connection, progress).run()
    except ConnectionFailed as error:
        raise SyncFailed(str(error)) from None
    finally:
        spool.close(delivered=done)
        if spool.damaged:
            click.echo(f"{spool.folder}: {spool.damaged} damaged bytes were left out", err=True)
    return done


@dataclass(slots=True)
class _Sent:
    """A segment on its way."""

    path: Path
    first: int
    last: int
    size: int


class _Transfer:
    """One spool over one connection: bounded in flight, each segment deleted once all of it is acked.

    So a sync that is killed has lost nothing, and the next one need not begin again.
    """

    def __init__(self, spool: Leftover, connection: Connection, progress: Callable[[int], None]) -> None:
        self._spool, self._connection, self._progress = spool, connection, progress
        self._delivery, self._flight = Delivery(), Flight()
        self._waiting: deque[_Sent] = deque()
        self._acked_at = time.monotonic()

    def run(self) -> bool:
        """Whether all of it is on the server's disk (or the server wants none of it)."""
        threading.Thread(target=self._listen, daemon=True).start()
        preamble = b"".join(self._spool.preamble)
        for part in self._spool.preamble:
            self._connection.send(part)
        self._await(lambda: self._delivery.covers(0, 0))  # with it comes what the server has already
        for segment in self._spool.segments():
            while (batch := segment.walk.next(_BATCH)).data:
                if not self._delivery.covers(batch.first, batch.last):
                    self._send(batch.data, batch.first, batch.last)
                if self._given_up:
                    break
            self._waiting.append(_Sent(segment.path, segment.first, segment.walk.seq, segment.size))
        done = self._await(self._all_acked)
        self._progress(len(preamble))
        if not done and not self._delivery.again and not self._delivery.deleted:
            raise ConnectionFailed(
                f"the server went away or is stuck; what it has not acked waits in {self._spool.folder}"
            )
        return done or self._delivery.deleted

    def _all_acked(self) -> bool:
        return not self._waiting and all(self._delivery.covers(seq, seq) for seq in self._spool.preamble_seqs)

    def _send(self, data: bytes, first: int, last: int) -> None:
        self._await(lambda: self._flight.size(self._delivery) <= _IN_FLIGHT)
        self._connection.send(data)
        self._flight.sent(first, last, len(data))

    @property
    def _given_up(self) -> bool:
        stalled = time.monotonic() > self._acked_at + _PATIENCE
        return self._delivery.deleted or self._delivery.again or self._connection.lost or stalled

    def _await(self, holds: Callable[[], bool]) -> bool:
        """Wait until ``holds``, as long as acks keep coming; meanwhile bury what was refused, delete what is acked."""
        while True:
            for tombstone in self._delivery.take_tombstones(self._spool.writer):
                self._connection.send(tombstone)
            self._delete_acked()
            if holds():
                return True
            if self._given_up:
                return False
            self._spool.touch()
            self._delivery.changed.wait(0.2)
            self._delivery.changed.clear()

    def _delete_acked(self) -> None:
        while self._waiting and self._is_acked(self._waiting[0]):
            sent = self._waiting.popleft()
            sent.path.unlink(missing_ok=True)
            self._progress(sent.size)

    def _is_acked(self, sent: _Sent) -> bool:
        return sent.last < sent.first or self._delivery.covers(sent.first, sent.last)

    def _listen(self) -> None:
        for answer in self._connection.answers():
            self._acked_at = time.monotonic()
            self._delivery.take(answer, self._spool.writer)
        self._connection.lost = True
        self._delivery.changed.set()
