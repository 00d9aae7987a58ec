"""The sender: tails the spool and brings its frames to a server, now or whenever one can be reached.

One daemon thread sends, one reads the answers. Neither holds anything the training thread needs.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from gradwatch import frames
from gradwatch.connection import Connection, ConnectionFailed
from gradwatch.console import say
from gradwatch.frames import Frame, Kind
from gradwatch.spool import Reader, Spool

HEARTBEAT: Final = 10.0  # seconds
UNWATCHED_PACE: Final = 1.0  # seconds between batches while nobody looks
_BATCH: Final = 128 << 10  # bytes a message: walking it holds the interpreter for about 200 microseconds at most
_IN_FLIGHT: Final = 8 << 20  # bytes sent and not acked, beyond which the sender waits
_LOOK_AGAIN: Final = 1.0  # seconds between two looks for a server that is not there
_MOST_COMMANDS: Final = 16  # that wait for the training's next step
_HOPE: Final = 0.5  # seconds in which a first connection, if any can be had, is made
_HOPE_AGAIN: Final = 30.0  # seconds in which a lost server may come back before an ending run stops waiting for it
_REFUSED_WAIT: Final = 30.0  # seconds after a refusal that a person has to mend
_RESEND: Final = ("table", "hello")  # codes that ask for hello and tables again
_WAIT: Final = ("version", "full", "busy")  # codes after which the frame waits in the spool


class Delivery:
    """What the server has said of one writer's frames; shared by the two threads of a sender."""

    def __init__(self) -> None:
        self.through = -1
        self.pace = UNWATCHED_PACE
        self.refused: list[str] = []
        self.tombstones: list[tuple[int, str]] = []  # refused for good, to be replaced by a counted tombstone
        self.deleted = False
        self.again = False  # reconnect and begin again with the preamble
        self.hold = 0.0  # seconds to wait before the next try
        self.changed = threading.Event()
        self._commands: deque[Mapping[str, Any]] = deque(maxlen=_MOST_COMMANDS)

    def take_commands(self) -> list[Mapping[str, Any]]:
        """What people asked of the writer since the last call."""
        commands = []
        while self._commands:
            commands.append(self._commands.popleft())
        return commands

    def take(self, answer: Frame, writer: str) -> None:
        """Learn from an ack or a refusal that is about ``writer``."""
        if answer.header.get("writer") not in (writer, None):
            return
        if answer.kind is Kind.ACK:
            self.through = max(self.through, int(answer.header["through"]))
            # A server on a fresh database lacks what an earlier one acked; what joins on to that counts all the same.
            for first, last in sorted(answer.header.get("ranges", [])):
                if first <= self.through + 1:
                    self.through = max(self.through, last)
            self.pace = float(answer.header.get("pace", UNWATCHED_PACE))
        elif answer.kind is Kind.CONTROL:
            self._commands.append(answer.header)
        elif answer.kind is Kind.REFUSE:
            self._refused(str(answer.header.get("code")), str(answer.header.get("message")), answer.header.get("seq"))
        self.changed.set()

    def take_tombstones(self, writer: str) -> list[bytes]:
        """Frames of kind ``dropped`` in the place of those refused since the last call."""
        refused, self.tombstones = self.tombstones, []
        lost = {"first_step": 0, "last_step": 0, "rows": 0}
        return [
            frames.encode(
                Kind.DROPPED, {"writer": writer, "seq": seq, **lost, "reason": f"refused by the server: {code}"}
            )
            for seq, code in refused
        ]

    def _refused(self, code: str, message: str, seq: object) -> None:
        if code == "conflict":  # the frame's tombstone is there already
            return
        if message not in self.refused and len(self.refused) < 20:
            self.refused.append(message)
            say(f"the server refused a frame: {message}")
        if code == "deleted":
            self.deleted = True
        elif code in _RESEND:
            self.again, self.hold = True, 1.0
        elif code in _WAIT:
            self.again, self.hold = True, _REFUSED_WAIT
        elif isinstance(seq, int):
            self.tombstones.append((seq, code))


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
                self._pause(_REFUSED_WAIT if error.final else _backoff(failures))
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
        reader, flight, beat = Reader(self._spool), _Flight(), time.monotonic()
        while not self._stop.is_set() and not lost.is_set() and not (self.delivery.again or self.delivery.deleted):
            # Tables that came after the connection stood go ahead of the steps that cite them.
            for part in self._spool.preamble[sent_tables:]:
                connection.send(part)
                sent_tables += 1
            sent = self._send_batch(connection, reader, flight)
            self._bury(connection)
            self._spool.acked(self.delivery.through)
            if time.monotonic() - beat > HEARTBEAT:
                beat = time.monotonic()
                connection.send(self._heartbeat())
            if not sent:
                self._news.wait(min(self.delivery.pace, HEARTBEAT))
                self._news.clear()

    def _send_batch(self, connection: Connection, reader: Reader, flight: _Flight) -> bool:
        if flight.bytes_beyond(self.delivery.through) > _IN_FLIGHT:
            return False
        data, last = reader.next_batch(_BATCH)
        if not data:
            return False
        if last > self.delivery.through:
            connection.send(data)
            flight.sent(last, len(data))
        return True

    def _bury(self, connection: Connection) -> None:
        # Without it the seq would stay a hole, and acks, which are cumulative, would never pass it.
        for tombstone in self.delivery.take_tombstones(self._spool.writer):
            connection.send(tombstone)

    def _listen(self, connection: Connection, lost: threading.Event) -> None:
        try:
            for answer in connection.answers():
                self.delivery.take(answer, self._spool.writer)
        except Exception:
            connection.close()
        finally:
            lost.set()
            self._news.set()

    def _heartbeat(self) -> bytes:
        header = {"writer": self._spool.writer, "time": time.time(), "last_step": self._last_step()}
        return frames.encode(Kind.HEARTBEAT, header)


class _Flight:
    """Batches sent on this connection and not yet acked."""

    def __init__(self) -> None:
        self._batches: list[tuple[int, int]] = []

    def sent(self, last_seq: int, size: int) -> None:
        self._batches.append((last_seq, size))

    def bytes_beyond(self, through: int) -> int:
        self._batches = [batch for batch in self._batches if batch[0] > through]
        return sum(size for _, size in self._batches)


def _backoff(failures: int) -> float:
    """Seconds before the next try: doubling from 0.5 to 15, jittered so that many hooks do not come at once."""
    return float(min(15.0, 0.5 * 2 ** min(failures - 1, 6)) * random.uniform(0.5, 1.5))
