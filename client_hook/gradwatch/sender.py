"""The sender: tails the spool and brings its frames to a server, now or whenever one can be reached.

One daemon thread sends, one reads the answers. Neither holds anything the training thread needs.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final

from gradwatch import frames
from gradwatch.connection import Connection, ConnectionFailed
from gradwatch.console import say
from gradwatch.delivery import REFUSED_WAIT, UNWATCHED_PACE, Delivery, Flight
from gradwatch.frames import Kind
from gradwatch.spool import Spool
from gradwatch.spool_reader import Reader

HEARTBEAT: Final = 10.0  # seconds
_BATCH: Final = 128 << 10  # bytes a message: walking it holds the interpreter for about 200 microseconds at most
_IN_FLIGHT: Final = 8 << 20  # bytes sent and not acked, beyond which the sender waits
_LATE: Final = 1 << 20  # bytes waiting when a connection stands, beyond which new frames overtake them
_LATE_IN_FLIGHT: Final = 2 << 20  # bytes of them sent and not acked: new frames wait behind these on the server
_BREATH: Final = 5e-5  # seconds between walking a batch and sending it, in which the training gets the interpreter
_LOOK_AGAIN: Final = 1.0  # seconds between two looks for a server that is not there
_HOPE: Final = 0.5  # seconds in which a first connection, if any can be had, is made
_HOPE_AGAIN: Final = 30.0  # seconds in which a lost server may come back before an ending run stops waiting for it


class _Stream:
    """Frames on their way from one place in the spool; ``most``: bytes not acked beyond which it waits."""

    def __init__(self, reader: Reader, most: int) -> None:
        self.reader, self.most = reader, most
        self.flight = Flight()


class Sender:
    """Brings the frames of ``spool`` to the server that ``find`` names (None while there is none).

    ``on_server`` hears the address once a connection stands. ``heartbeat`` gives the last step.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        find: Callable[[], str | None],
        token: str | None,
        on_server: Callable[[str], None],
        last_step: Callable[[], int | None],
    ) -> None:
        self.delivery = Delivery()
        self._spool = spool
        self._find = find
        self._token = token
        self._on_server = on_server
        self._last_step = last_step
        self._hopeful_until = time.monotonic() + _HOPE  # a server may still come, or come back
        self._connected = False
        self._hurry = threading.Event()
        self._news = threading.Event()
        self._awaits_room = False  # there is more to send as soon as acks make room
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gradwatch-send", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def notify(self, *, urgent: bool = False) -> None:
        """The spool has grown. Urgent frames, and those of watched runs, go at once; others at the server's pace."""
        if urgent or self.delivery.pace < UNWATCHED_PACE:
            self._news.set()

    def close(self, last_seq: int, deadline: float) -> bool:
        """Try to deliver all up to ``last_seq`` before ``deadline`` (monotonic seconds). Whether that was done."""
        while self.delivery.through < last_seq and time.monotonic() < deadline and self._thread.is_alive():
            if not self._hopeful:
                break  # there is no server to wait for
            self._hurry.set()
            self._news.set()
            self.delivery.changed.wait(0.02)
            self.delivery.changed.clear()
        self._stop.set()
        self._news.set()
        self._hurry.set()
        if self._hopeful:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return self.delivery.through >= last_seq or self.delivery.deleted

    @property
    def _hopeful(self) -> bool:
        return self._connected or time.monotonic() < self._hopeful_until

    def _lost(self, *, final: bool) -> None:
        """No connection stands any more; one that did stand may be back soon, as when a server is restarted."""
        if self._connected:
            self._hopeful_until = time.monotonic() + _HOPE_AGAIN
        elif final:
            self._hopeful_until = 0.0
        self._connected = False

    def _pause(self, seconds: float) -> None:
        """Wait, but hardly any more once the run is ending."""
        if not self._hurry.wait(seconds):
            return
        self._stop.wait(min(seconds, 0.1))

    def _run(self) -> None:
        failures, told = 0, ""
        while not self._stop.is_set() and not self.delivery.deleted:
            try:
                server = self._find()
                if server is None:
                    self._pause(_LOOK_AGAIN)
                    continue
                with Connection.open(server, self._token) as connection:
                    failures, self._connected = 0, True
                    self._on_server(server)
                    self._converse(connection)
            except ConnectionFailed as error:
                failures += 1
                if str(error) != told and (error.final or not told):
                    told = str(error)
                    say(f"{told}; frames wait in {self._spool.folder}")
                self._lost(final=error.final)
                self._pause(REFUSED_WAIT if error.final else _backoff(failures))
            except Exception as error:  # nothing here may end in the user's console as a traceback
                failures += 1
                self._lost(final=False)
                self._pause(_backoff(failures))
                told = repr(error)
            self._lost(final=False)
            self._pause(self.delivery.hold)
            self.delivery.hold = 0.0

    def _converse(self, connection: Connection) -> None:
        self.delivery.again = False
        lost = threading.Event()
        threading.Thread(target=self._listen, args=(connection, lost), name="gradwatch-acks", daemon=True).start()
        connection.send(b"".join(self._spool.preamble[:1]))
        for part in self._spool.preamble[1:]:
            connection.send(part)
        sent_tables = len(self._spool.preamble)
        streams, beat = self._streams(), time.monotonic()
        while not self._stop.is_set() and not lost.is_set() and not (self.delivery.again or self.delivery.deleted):
            # Tables that came after the connection stood go ahead of the steps that cite them.
            for part in self._spool.preamble[sent_tables:]:
                connection.send(part)
                sent_tables += 1
            sent = self._send_some(connection, streams)
            self._bury(connection)
            self._spool.acked(self.delivery.covers)
            if time.monotonic() - beat > HEARTBEAT:
                beat = time.monotonic()
                connection.send(self._heartbeat())
            if not sent:
                self._news.wait(min(self.delivery.pace, HEARTBEAT))
                self._news.clear()

    def _streams(self) -> list[_Stream]:
        """What to send from, in turn. Behind an outage new frames go first, and old ones fill the gap behind them."""
        if self._spool.size <= _LATE:
            return [_Stream(Reader(self._spool), _IN_FLIGHT)]
        return [_Stream(Reader(self._spool, behind=True), _IN_FLIGHT), _Stream(Reader(self._spool), _LATE_IN_FLIGHT)]

    def _send_some(self, connection: Connection, streams: list[_Stream]) -> bool:
        """One batch of each stream that has room; whether there was any."""
        some = self._awaits_room = False
        for stream in streams:
            if stream.flight.size(self.delivery) > stream.most:
                self._awaits_room = True
                continue
            batch = stream.reader.next_batch(_BATCH)
            if not batch.data:
                continue
            some = True
            time.sleep(_BREATH)
            if not self.delivery.covers(batch.first, batch.last):
                connection.send(batch.data)
                stream.flight.sent(batch.first, batch.last, len(batch.data))
        if len(streams) > 1 and streams[1].reader.seq >= streams[0].reader.begun:
            streams.pop()
        return some

    def _bury(self, connection: Connection) -> None:
        # Without it the seq would stay a hole, and acks, which are cumulative, would never pass it.
        for tombstone in self.delivery.take_tombstones(self._spool.writer):
            connection.send(tombstone)

    def _listen(self, connection: Connection, lost: threading.Event) -> None:
        try:
            for answer in connection.answers():
                self.delivery.take(answer, self._spool.writer)
                if self._awaits_room:
                    self._news.set()
        except Exception:
            connection.close()
        finally:
            lost.set()
            self._news.set()

    def _heartbeat(self) -> bytes:
        header = {"writer": self._spool.writer, "time": time.time(), "last_step": self._last_step()}
        return frames.encode(Kind.HEARTBEAT, header)


def _backoff(failures: int) -> float:
    """Seconds before the next try: doubling from 0.5 to 15, jittered so that many hooks do not come at once."""
    return float(min(15.0, 0.5 * 2 ** min(failures - 1, 6)) * random.uniform(0.5, 1.5))
