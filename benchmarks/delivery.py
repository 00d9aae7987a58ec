"""Frames over a real socket as the hook's sender brings them: messages of 128 KiB, at most 8 MiB not acked."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from gradwatch import frames
from gradwatch.connection import Connection
from gradwatch.frames import Kind

MESSAGE: Final = 128 << 10
IN_FLIGHT: Final = 8 << 20
_PATIENCE: Final = 120  # seconds without an ack


def messages(data: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Whole frames, joined up to MESSAGE bytes; each message with the seq of its last frame."""
    joined: list[bytes] = []
    size = 0
    for frame in data:
        if joined and size + len(frame) > MESSAGE:
            yield _last_seq(joined), b"".join(joined)
            joined, size = [], 0
        joined.append(frame)
        size += len(frame)
    yield _last_seq(joined), b"".join(joined)


def _last_seq(joined: list[bytes]) -> int:
    *_, last = frames.decode_all(joined[-1])
    return int(last.header["seq"])


def deliver(url: str, parts: Sequence[tuple[int, bytes]]) -> tuple[float, float]:
    """Send one writer's messages until all are acked; gives when the first was sent and when the last ack came."""
    acks = _Acks()
    flight: deque[tuple[int, int]] = deque()  # (last seq, bytes) of what was sent
    in_flight = 0
    with Connection.open(url, None) as connection:
        listening = threading.Thread(target=acks.listen, args=(connection,), daemon=True)
        listening.start()
        begun = time.monotonic()
        for last_seq, part in parts:
            while in_flight > IN_FLIGHT:
                acks.wait_for(flight[0][0])
                while flight and flight[0][0] <= acks.through:
                    in_flight -= flight.popleft()[1]
            connection.send(part)
            flight.append((last_seq, len(part)))
            in_flight += len(part)
        acks.wait_for(parts[-1][0])
        ended = acks.at
    listening.join(5)
    return begun, ended


class _Acks:
    def __init__(self) -> None:
        self.through = -1
        self.at = 0.0  # when the newest ack came
        self.refusal = ""
        self._changed = threading.Condition()

    def listen(self, connection: Connection) -> None:
        for answer in connection.answers():
            with self._changed:
                if answer.kind is Kind.REFUSE:
                    self.refusal = str(answer.header["message"])
                self.through, self.at = max(self.through, int(answer.header.get("through", -1))), time.monotonic()
                self._changed.notify()

    def wait_for(self, seq: int) -> None:
        """Wait until all up to ``seq`` is acked."""
        with self._changed:
            done = self._changed.wait_for(lambda: self.through >= seq or self.refusal, _PATIENCE)
        if self.refusal:
            raise SystemExit(f"the server refused a frame: {self.refusal}")
        if not done:
            raise SystemExit(f"no ack within {_PATIENCE} s")
