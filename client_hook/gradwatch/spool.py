"""The spool: segment files of frames on disk. It is the queue between the training and every server, now or later.

A writer has one folder, ``<spool>/<writer>/``, with a ``lock`` held as long as its process lives, a ``preamble.gw``
(hello and layer tables, which every server needs first) and segments. A frame counts as produced once ``append``
returns: it is with the operating system then and survives the death of the process. Frames check themselves, so a
tail torn by a crash is recognised and left out.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Final

from gradwatch.claim import Claim
from gradwatch.console import say
from gradwatch.frames import Kind
from gradwatch.segment import PREAMBLE, Segment, delete_folder, private, segment_path, write_beside
from gradwatch.tombstone import in_place_of
from gradwatch.walk import Walk, each

SEGMENT_SIZE: Final = 8 << 20  # bytes after which the next segment is begun, so that acked ones can go
MEMORY_SEGMENT: Final = 1 << 20  # the same in memory
MEMORY_CAP: Final = 64 << 20  # bytes kept in memory while the disk takes nothing
RESERVE: Final = 64 << 10  # bytes beyond either cap for what must not be lost: tombstones, events, the end
RETRY: Final = 5.0  # seconds between two tries of a disk that failed
_TELL_AGAIN: Final = 60.0  # seconds for which a disk that comes and goes is not spoken of again
# What goes first beyond the cap, and what goes once nothing of that is left: never events, tombstones, the end.
_DETAIL: Final = (
    {Kind.STEPS, Kind.SAMPLES, Kind.HISTOGRAM},
    {Kind.STEPS, Kind.SAMPLES, Kind.HISTOGRAM, Kind.SCALARS, Kind.LANDSCAPE},
)
_THINNED_AT_ONCE: Final = 8 << 10  # bytes walked between two pauses, in which the training gets the interpreter
_PAUSE: Final = 1e-4  # seconds


class Spool:
    """A living writer's own spool: one thread appends, one reads.

    ``directory``: the folder of all spools. ``cap``: bytes on disk beyond which the oldest detail becomes counted
    tombstones. While the disk fails, frames go to memory, up to 64 MiB; every few seconds the disk is tried again.
    """

    def __init__(self, directory: Path, writer: str, cap: int) -> None:
        self.writer = writer
        self.preamble: list[bytes] = []
        self.disk_error: str | None = None
        self.folder = directory / writer
        self.last = -1  # seq of the newest frame
        self._cap = cap
        self._segments: list[Segment] = []
        self._preamble_seqs: set[int] = set()
        self._guard = threading.Lock()  # over the list of segments; never held during disk writes of other threads
        self._claim: Claim | None = None
        self._retry_at = 0.0
        self._told_at = -_TELL_AGAIN
        self._failure_told = self._cap_told = False
        try:
            self._take_folder()
        except OSError as error:
            self._disk_failed(error)

    def _take_folder(self) -> None:
        # One by one, because mkdir gives the mode to the last folder only.
        for folder in (self.folder.parent.parent, self.folder.parent, self.folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._claim = Claim(self.folder)

    def append(self, data: bytes, seq: int, *, preamble: bool = False, reserved: bool = False) -> bool:
        """Take one whole frame. False: there is no room, on disk or in memory, and nothing was taken.

        ``preamble``: hello and tables, kept until the run is delivered. ``reserved``: may use the reserve.
        """
        if preamble:
            self._append_preamble(data, seq)
            return True
        segment = self._current(seq)
        if self._make_room(len(data), reserved, in_memory=segment.in_memory):
            try:
                segment.append(data, seq)
            except OSError as error:
                self._disk_failed(error)
                return self.append(data, seq, reserved=reserved)
        elif self.disk_error is not None and not segment.in_memory:  # it failed while room was made
            return self.append(data, seq, reserved=reserved)
        else:
            return False
        self.last = seq
        return True

    def _append_preamble(self, data: bytes, seq: int) -> None:
        self._preamble_seqs.add(seq)
        self.preamble.append(data)
        self.last = seq
        if self.disk_error is not None:
            return
        try:
            with open(self.folder / PREAMBLE, "ab", opener=private) as file:
                file.write(data)
        except OSError as error:
            self._disk_failed(error)

    # Room.

    def _make_room(self, size: int, reserved: bool, *, in_memory: bool) -> bool:
        """Whether there is room for ``size`` bytes, once the oldest detail has been let go."""
        cap = MEMORY_CAP if in_memory else self._cap
        while self._used(in_memory) + size > cap:
            if not self._thin_oldest(in_memory):
                return reserved and self._used(in_memory) + size <= cap + RESERVE
            if not self._cap_told:
                self._cap_told = True
                room = f"{cap / (1 << 20):.4g} MiB"
                say(f"the spool {self.folder} has reached {room}; its oldest steps make room, and are counted")
        return True

    def _used(self, in_memory: bool) -> int:
        return sum(segment.size for segment in self.segments() if segment.in_memory == in_memory)

    def _thin_oldest(self, in_memory: bool) -> bool:
        for level, kinds in enumerate(_DETAIL, 1):
            for segment in self.segments()[:-1]:
                if segment.in_memory == in_memory and segment.thinned < level:
                    return self._thin(segment, level, kinds)
        return False

    def _thin(self, segment: Segment, level: int, kinds: Container[Kind]) -> bool:
        walk, kept = self.walk(segment), list[bytes]()
        while (batch := walk.next(_THINNED_AT_ONCE)).data:
            kept += _thinned(batch.data, kinds)
            time.sleep(_PAUSE)
        try:
            segment.rewrite(kept)
        except OSError as error:
            self._disk_failed(error)
            return False
        segment.thinned = level
        return True

    # A disk that fails.

    def tend(self) -> None:
        """Say that this process lives; try a disk that has failed. Call it often, in the thread that appends."""
        if self.disk_error is not None:
            if time.monotonic() >= self._retry_at:
                self._retry()
            return
        try:
            if self._claim is not None:
                self._claim.touch()
        except OSError as error:
            self._disk_failed(error)

    def _disk_failed(self, error: OSError) -> None:
        self._retry_at = time.monotonic() + RETRY
        if self.disk_error is None and time.monotonic() >= self._told_at + _TELL_AGAIN:
            self._told_at, self._failure_told = time.monotonic(), True
            say(f"the spool cannot be written ({error}); frames wait in memory and are lost if the process dies")
        self.disk_error = str(error)
        self._forget_empty()

    def _forget_empty(self) -> None:
        with self._guard:
            empty = [segment for segment in self._segments if not segment.size and not segment.in_memory]
            self._segments = [segment for segment in self._segments if segment not in empty]
        for segment in empty:
            segment.delete()

    def _retry(self) -> None:
        """Bring to the disk what is not on it, in order; go on in memory where it still fails."""
        try:
            if self._claim is None or not self._claim.holds():
                self.unlock()
                self._take_folder()
            else:
                self._claim.touch()
            os.close(write_beside(self.folder / PREAMBLE, self.preamble))
            for segment in self.segments():
                if segment.size and not segment.is_stored:
                    if segment.in_memory and not self._make_room(segment.size, reserved=True, in_memory=False):
                        raise OSError("the spool is full")
                    segment.store(segment_path(self.folder, segment.first))
        except OSError as error:
            self._disk_failed(error)
            return
        self.disk_error = None
        if self._failure_told:
            self._failure_told = False
            say("the spool can be written again; what waited in memory is on disk")

    # Segments.

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(segment.size for segment in self.segments())

    def _current(self, seq: int) -> Segment:
        with self._guard:
            last = self._segments[-1] if self._segments else None
        in_memory = self.disk_error is not None
        most = MEMORY_SEGMENT if in_memory else min(SEGMENT_SIZE, max(self._cap // 16, 1))
        if last is not None and last.size < most and last.in_memory == in_memory:
            return last
        if in_memory:
            return self._begin(Segment(seq, None))
        try:
            return self._begin(Segment(seq, segment_path(self.folder, seq)))
        except OSError as error:
            self._disk_failed(error)
            return self._begin(Segment(seq, None))

    def _begin(self, segment: Segment) -> Segment:
        with self._guard:
            self._segments.append(segment)
        return segment

    def segments(self) -> list[Segment]:
        """Those not yet acked, oldest first."""
        with self._guard:
            return list(self._segments)

    def acked(self, is_acked: Callable[[int, int], bool]) -> None:
        """Drop every full segment whose frames, from its first seq to its last, are all on the server's disk."""
        with self._guard:
            done = [segment for segment in self._segments[:-1] if is_acked(segment.first, segment.last)]
            if done:
                self._segments = [segment for segment in self._segments if segment not in done]
        for segment in done:
            segment.delete()

    def walk(self, segment: Segment) -> Walk:
        """Through the frames of one of its segments."""
        return Walk(segment, self.writer, self._preamble_seqs)

    def close(self, *, delivered: bool) -> None:
        """Let go of the files; take them away when everything in them has been acked."""
        if self.disk_error is not None and not delivered:
            self._retry()
        for segment in self.segments():
            segment.close()
        if delivered:
            delete_folder(self.folder)
        if self._claim is not None:
            self._claim.release(ended=True)

    def unlock(self) -> None:
        """Let go of the folder, and of nothing else: what a forked child does with its parent's spool."""
        if self._claim is not None:
            self._claim.release()


def _thinned(data: bytes, kinds: Container[Kind]) -> Iterable[bytes]:
    """The frames in ``data``, with a tombstone in the place of each of ``kinds``."""
    for frame, raw in each(data):
        yield in_place_of(frame, "the spool was full") if frame.kind in kinds else raw
