"""The spool: segment files of frames on disk. It is the queue between the training and every server, now or later.

A writer has one folder, ``<spool>/<writer>/``, with a ``lock`` held as long as its process lives, a ``preamble.gw``
(hello and layer tables, which every server needs first) and numbered segments. A frame counts as produced once
``append`` returns: it is with the operating system then and survives the death of the process. Frames check themselves,
so a tail torn by a crash is recognised and left out.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from gradwatch import frames
from gradwatch.console import say
from gradwatch.segment import PREAMBLE, Segment, delete_folder, lock, private

SEGMENT_SIZE: Final = 8 << 20  # bytes after which the next segment is begun, so that acked ones can go
MEMORY_CAP: Final = 64 << 20  # bytes kept in memory while the disk takes nothing
RESERVE: Final = 64 << 10  # bytes beyond either cap for what must not be lost: tombstones, events, the end


class Spool:
    """A living writer's own spool: one thread appends, one reads.

    ``directory``: the folder of all spools. ``cap``: bytes on disk beyond which frames are refused (``append`` says
    False, the caller counts). When the disk fails, frames go to memory up to 64 MiB.
    """

    def __init__(self, directory: Path, writer: str, cap: int) -> None:
        self.writer = writer
        self.preamble: list[bytes] = []
        self.disk_error: str | None = None
        self.folder = directory / writer
        self._cap = cap
        self._segments: list[Segment] = []
        self._number = 0
        self._guard = threading.Lock()  # over the list of segments; never held during disk writes of other threads
        self._lock: int | None = None
        try:
            # One by one, because mkdir gives the mode to the last folder only.
            for folder in (directory.parent, directory, self.folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=folder is not self.folder)
            self._lock = lock(self.folder)
        except OSError as error:
            self._disk_failed(error)

    def append(self, data: bytes, seq: int, *, preamble: bool = False, reserved: bool = False) -> bool:
        """Take one whole frame. False: there is no room, on disk or in memory, and nothing was taken.

        ``preamble``: hello and tables, kept until the run is delivered. ``reserved``: may use the reserve.
        """
        if preamble:
            self._append_preamble(data)
            return True
        segment = self._current()
        if not self._has_room(segment, len(data), reserved):
            return False
        try:
            segment.append(data)
        except OSError as error:
            self._disk_failed(error)
            segment = self._begin(None)
            segment.append(data)
        segment.last_seq = seq
        return True

    def _has_room(self, segment: Segment, size: int, reserved: bool) -> bool:
        in_memory = segment.path is None
        used = sum(other.size for other in self.segments() if (other.path is None) == in_memory)
        return used + size <= (MEMORY_CAP if in_memory else self._cap) + (RESERVE if reserved else 0)

    def _append_preamble(self, data: bytes) -> None:
        self.preamble.append(data)
        if self.disk_error is not None:
            return
        try:
            with open(self.folder / PREAMBLE, "ab", opener=private) as file:
                file.write(data)
        except OSError as error:
            self._disk_failed(error)

    def _disk_failed(self, error: OSError) -> None:
        if self.disk_error is None:
            self.disk_error = str(error)
            say(f"the spool cannot be written ({error}); frames wait in memory and are lost if the process dies")

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(segment.size for segment in self.segments())

    def _current(self) -> Segment:
        with self._guard:
            last = self._segments[-1] if self._segments else None
        if last is not None and last.size < SEGMENT_SIZE and (last.path is None or self.disk_error is None):
            return last
        if self.disk_error is not None:
            return self._begin(None)
        try:
            return self._begin(self.folder / f"{self._number:08d}.gw")
        except OSError as error:
            self._disk_failed(error)
            return self._begin(None)

    def _begin(self, path: Path | None) -> Segment:
        segment = Segment(path)
        self._number += 1
        with self._guard:
            self._segments.append(segment)
        return segment

    def segments(self) -> list[Segment]:
        """Those not yet acked, oldest first."""
        with self._guard:
            return list(self._segments)

    def acked(self, through: int) -> None:
        """Drop every full segment whose frames, all up to seq ``through``, are on the server's disk."""
        with self._guard:
            full = self._segments[:-1]
            done = [segment for segment in full if segment.last_seq <= through]
            self._segments = self._segments[len(done) :]
        for segment in done:
            segment.delete()

    def close(self, *, delivered: bool) -> None:
        """Let go of the files; take them away when everything in them has been acked."""
        for segment in self.segments():
            segment.close()
        if delivered:
            delete_folder(self.folder)
        self.unlock()

    def unlock(self) -> None:
        """Let go of the folder, and of nothing else: what a forked child does with its parent's spool."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Reader:
    """Reads the frames of a living spool in order, from the oldest that is left; knows where it stands."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._segment: Segment | None = None
        self._at = 0

    def next_batch(self, most: int) -> tuple[bytes, int]:
        """Whole frames of at most ``most`` bytes together (a single one may be longer) and the seq of the last.

        Empty bytes and -1: nothing new.
        """
        while True:
            segments = self._spool.segments()
            if self._segment not in segments:
                self._segment, self._at = (segments[0] if segments else None), 0
            segment = self._segment
            if segment is None:
                return b"", -1
            if self._at < segment.size:
                return self._whole_frames(segment, most)
            following = segments[segments.index(segment) + 1 :]
            if not following:
                return b"", -1
            self._segment, self._at = following[0], 0

    def _whole_frames(self, segment: Segment, most: int) -> tuple[bytes, int]:
        data = segment.read(self._at, max(most, frames.PREFIX_SIZE))
        if len(data) < frames.frame_size(data):
            data = segment.read(self._at, frames.frame_size(data))
        last = end = 0
        while len(data) - end >= frames.PREFIX_SIZE:
            size = frames.frame_size(data[end : end + frames.PREFIX_SIZE])
            if end + size > len(data):
                break
            last, end = end, end + size
        self._at += end
        return data[:end], int(frames.decode(data[last:end]).header["seq"])
