"""What a server has said of one writer's frames: which are on its disk, which it refuses, what people ask for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gradwatch.console import say
from gradwatch.frames import Frame, Kind
from gradwatch.tombstone import tombstone

UNWATCHED_PACE: Final = 1.0  # seconds between batches while nobody looks
REFUSED_WAIT: Final = 30.0  # seconds after a refusal that a person has to mend
_MOST_COMMANDS: Final = 16  # that wait for the training's next step
_RESEND: Final = ("table", "hello")  # codes that ask for hello and tables again
_WAIT: Final = ("version", "full", "busy")  # codes after which the frame waits in the spool


class Delivery:
    """Shared by the thread that sends and the one that reads the answers."""

    def __init__(self) -> None:
        self.pace = UNWATCHED_PACE
        self.refused: list[str] = []
        self.deleted = False
        self.again = False  # reconnect and begin again with the preamble
        self.hold = 0.0  # seconds to wait before the next try
        self.changed = threading.Event()
        self._acked: list[tuple[int, int]] = []  # closed ranges of seqs, apart and in order
        self._tombstones: list[tuple[int, str]] = []  # refused for good, to be replaced by a counted tombstone
        self._commands: deque[Mapping[str, Any]] = deque(maxlen=_MOST_COMMANDS)

    @property
    def through(self) -> int:
        """The last seq up to which all are acked, or -1."""
        return self._acked[0][1] if self._acked and self._acked[0][0] == 0 else -1

    def covers(self, first: int, last: int) -> bool:
        """Whether all frames from ``first`` to ``last`` are on a server's disk."""
        return any(begin <= first and last <= end for begin, end in self._acked)

    def take_commands(self) -> list[Mapping[str, Any]]:
        """What people asked of the writer since the last call."""
        commands = []
        while self._commands:
            commands.append(self._commands.popleft())
        return commands

    def take(self, answer: Frame, writer: str) -> None:
        """Learn from an ack or a refusal that is about ``writer``."""
        header = answer.header
        if header.get("writer") not in (writer, None):
            return
        if answer.kind is Kind.ACK:
            through = int(header["through"])
            said = [(0, through)] if through >= 0 else []
            # With what was known: a server on a fresh database lacks what an earlier one acked; it counts all the same.
            self._acked = _joined([*self._acked, *said, *((int(a), int(b)) for a, b in header.get("ranges", []))])
            self.pace = float(header.get("pace", UNWATCHED_PACE))
        elif answer.kind is Kind.CONTROL:
            self._commands.append(header)
        elif answer.kind is Kind.REFUSE:
            self._refused(str(header.get("code")), str(header.get("message")), header.get("seq"))
        self.changed.set()

    def take_tombstones(self, writer: str) -> list[bytes]:
        """Frames of kind ``dropped`` in the place of those refused since the last call."""
        refused, self._tombstones = self._tombstones, []
        return [tombstone(writer, seq, f"refused by the server: {code}") for seq, code in refused]

    def _refused(self, code: str, message: str, seq: object) -> None:
        if code == "conflict":  # the frame, or its tombstone, is there already
            return
        if message not in self.refused and len(self.refused) < 20:
            self.refused.append(message)
            say(f"the server refused a frame: {message}")
        if code == "deleted":
            self.deleted = True
        elif code in _RESEND:
            self.again, self.hold = True, 1.0
        elif code in _WAIT:
            self.again, self.hold = True, REFUSED_WAIT
        elif isinstance(seq, int):
            self._tombstones.append((seq, code))


class Flight:
    """Batches sent on one connection, in order of their seqs, and not yet acked."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, int, int]] = deque()
        self._size = 0

    def sent(self, first: int, last: int, size: int) -> None:
        """Count a batch in."""
        self._batches.append((first, last, size))
        self._size += size

    def size(self, delivery: Delivery) -> int:
        """Bytes from the first batch on that still waits for its ack."""
        while self._batches and delivery.covers(*self._batches[0][:2]):
            self._size -= self._batches.popleft()[2]
        return self._size


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same seqs in as few ranges as there can be, in order."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined
