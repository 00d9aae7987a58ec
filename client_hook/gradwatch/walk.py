"""Frames on their way out of a file: whole ones one after the other, and tombstones for those the disk has damaged."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable
from typing import Final, NamedTuple, Protocol

from gradwatch import frames
from gradwatch.frames import FrameError, Kind
from gradwatch.segment import Rewritten
from gradwatch.tombstone import Steps, steps_of, tombstone

_WINDOW: Final = 256 << 10  # bytes looked through at a time for the next whole frame; a multiple of 8
_MOST_TOMBSTONES: Final = 500  # of one batch: a message must stay well below 1 MiB
_MOST_FRAMES: Final = 64  # of one batch: walking them holds the interpreter for about 200 microseconds


class Source(Protocol):
    """Where frames lie, of the seqs ``first`` to ``last``; ``version`` changes when what lies there is written anew."""

    first: int
    last: int
    size: int
    version: int

    def read(self, at: int, most: int, version: int) -> bytes: ...


class Batch(NamedTuple):
    """Whole frames with the seqs ``first`` to ``last`` (but for the preamble's, which travel apart)."""

    data: bytes
    first: int
    last: int


NOTHING: Final = Batch(b"", -1, -1)


class Walk:
    """Walks once through ``source``, as far as it has grown; ``preamble``: seqs that lie elsewhere."""

    def __init__(self, source: Source, writer: str, preamble: Container[int]) -> None:
        self.seq = source.first - 1  # of the last frame handed out
        self.damaged = 0  # bytes that were no whole frame
        self._source, self._writer, self._preamble = source, writer, preamble
        self._version = source.version
        self._at = self._passed = 0
        self._gap = False
        self._last_frame = b""
        self._owed: deque[bytes] = deque()

    def go_to(self, at: int, seq: int) -> None:
        """Leave out what lies before ``at``, up to ``seq``."""
        self._at, self.seq = at, seq

    def next(self, most: int) -> Batch:
        """Whole frames of about ``most`` bytes together (a single one may be longer); NOTHING at the end."""
        while True:
            last = self._source.last  # before the walk: what comes in between is no gap
            try:
                batch = self._next(most)
            except Rewritten:
                self._find_place()
                continue
            if batch.data:
                return batch
            if self._source.version != self._version:  # then the place may only have seemed to be the end
                self._find_place()
            elif self._gap:
                self._owe_until(last, 0, None)
            else:
                return NOTHING

    def _next(self, most: int) -> Batch:
        while not self._owed and self._at < self._source.size:
            data = self._read(self._at, max(most, frames.PREFIX_SIZE))
            count, end, last = intact(data)
            if not end:
                data = self._read(self._at, frames.MAX_FRAME)
                count, end, last = intact(data, 1)
            if not end:
                self._skip_damage()
            elif self._gap:
                self._owe(data)
            else:
                return self._hand_out(data, count, end, last)
        return self._pay() if self._owed else NOTHING

    def _read(self, at: int, most: int) -> bytes:
        return self._source.read(at, most, self._version)

    def _hand_out(self, data: bytes, count: int, end: int, last: int) -> Batch:
        self._at += end
        self._passed += count
        before, seq = self.seq, frames.seq_of(data[last:end])
        self.seq = before + count if seq is None else seq
        self._last_frame = data[last:end]
        return Batch(data[:end], before + 1, self.seq)

    def _skip_damage(self) -> None:
        begun, self._gap = self._at, True
        self._at = self._next_whole(begun + 8)
        self.damaged += self._at - begun

    def _next_whole(self, at: int) -> int:
        while data := self._read(at, _WINDOW):
            found = data.find(frames.MAGIC)
            while found >= 0:
                if found % 8 == 0 and self._is_whole(at + found):
                    return at + found
                found = data.find(frames.MAGIC, found + 1)
            at += _WINDOW
        return self._source.size

    def _is_whole(self, at: int) -> bool:
        try:
            size = frames.frame_size(self._read(at, frames.PREFIX_SIZE))
        except FrameError:
            return False
        return frames.is_whole(self._read(at, size))

    def _owe(self, data: bytes) -> None:
        seq, before, after = frames.seq_of(data), _steps(self._last_frame), _steps(data)
        rows, steps = 0, None
        if before and after and after[0] > before[1] + 1:
            steps = (before[1] + 1, after[0] - 1)  # steps are consecutive, so what is missing is known
            rows = steps[1] - steps[0] + 1
        self._owe_until(self.seq if seq is None else seq - 1, rows, steps)

    def _owe_until(self, last: int, rows: int, steps: Steps) -> None:
        self._gap = False
        for seq in range(self.seq + 1, last + 1):
            if seq not in self._preamble:
                self._owed.append(tombstone(self._writer, seq, "damaged on disk", rows=rows, steps=steps))
                rows, steps = 0, None

    def _pay(self) -> Batch:
        paid = [self._owed.popleft() for _ in range(min(len(self._owed), _MOST_TOMBSTONES))]
        before, last = self.seq, frames.seq_of(paid[-1])
        assert last is not None
        self._passed += len(paid)
        self.seq = last
        return Batch(b"".join(paid), before + 1, last)

    def _find_place(self) -> None:
        """Stand behind the frames handed out so far: whoever writes a source anew keeps their number and order."""
        self._version = self._source.version
        at, left = 0, self._passed
        while left and (data := self._read(at, _WINDOW)):
            count, end, _ = intact(data, left)
            if not count:
                break
            at, left = at + end, left - count
        self._at = at
        self._owed.clear()
        self._gap = False


def intact(data: bytes, most: int = _MOST_FRAMES) -> tuple[int, int, int]:
    """How many frames at the beginning of ``data`` are whole, the bytes they take, and where the last one begins."""
    view = memoryview(data)
    count = end = last = 0
    while count < most and frames.is_whole(view[end:]):
        last, end = end, end + frames.frame_size(view[end:])
        count += 1
    return count, end, last


def each(data: bytes) -> Iterable[tuple[frames.Frame, bytes]]:
    """Every frame in ``data``, with its bytes."""
    at = 0
    while at < len(data):
        frame = frames.decode(memoryview(data)[at:])
        yield frame, data[at : at + frame.size]
        at += frame.size


def _steps(data: bytes) -> Steps:
    try:
        frame = frames.decode(data)
    except FrameError:
        return None
    return steps_of(frame) if frame.kind is Kind.STEPS else None
