"""The spool: segment files of frames on disk. It is the queue between the training and every server, now or later.

A writer has one folder, ``<spool>/<writer>/``, with a ``lock`` held as long as its process lives, a ``preamble.gw``
(hello and layer tables, which every server needs first) and numbered segments. A frame counts as produced once
``append`` returns: it is with the operating system then and survives the death of the process. Frames check themselves,
so a tail torn by a crash is recognised and left out.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gradwatch import frames

SEGMENT_SIZE: Final = 8 << 20  # bytes after which the next segment is begun, so that acked ones can go
MEMORY_CAP: Final = 64 << 20  # bytes kept in memory while the disk takes nothing
_PREAMBLE: Final = "preamble.gw"
_LOCK: Final = "lock"


class Segment:
    """One run of frames, in a file or, where the disk takes nothing, in memory."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.size = 0
        self.last_seq = -1
        self._memory = bytearray()
        self._file: int | None = None
        if path is not None:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, data: bytes) -> None:
        """Raises OSError when the disk does not take all of it; then nothing of it stays."""
        if self._file is None:
            self._memory += data
        else:
            self._write(self._file, data)
        self.size += len(data)

    def _write(self, file: int, data: bytes) -> None:
        try:
            written = os.write(file, data)
            if written != len(data):
                raise OSError(f"the disk took {written} of {len(data)} bytes")
        except OSError:
            os.ftruncate(file, self.size)
            raise

    def read(self, at: int, most: int) -> bytes:
        """Bytes from ``at`` up to what has been appended."""
        end = min(self.size, at + most)
        if self.path is None:
            return bytes(self._memory[at:end])
        with open(self.path, "rb") as file:
            file.seek(at)
            return file.read(end - at)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def delete(self) -> None:
        self.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


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
            self.folder.mkdir(parents=True, mode=0o700)
            self._lock = lock(self.folder)
        except OSError as error:
            self.disk_error = str(error)

    def append(self, data: bytes, seq: int, *, preamble: bool = False) -> bool:
        """Take one whole frame. False: there is no room, on disk or in memory, and nothing was taken."""
        if preamble:
            self._append_preamble(data)
            return True
        segment = self._current()
        if self.size + len(data) > (self._cap if segment.path is not None else MEMORY_CAP):
            return False
        try:
            segment.append(data)
        except OSError as error:
            self.disk_error = str(error)
            segment = self._begin(None)
            segment.append(data)
        segment.last_seq = seq
        return True

    def _append_preamble(self, data: bytes) -> None:
        self.preamble.append(data)
        if self.disk_error is not None:
            return
        try:
            with open(self.folder / _PREAMBLE, "ab", opener=_private) as file:
                file.write(data)
        except OSError as error:
            self.disk_error = str(error)

    @property
    def size(self) -> int:
        """Bytes that wait."""
        with self._guard:
            return sum(segment.size for segment in self._segments)

    def _current(self) -> Segment:
        with self._guard:
            last = self._segments[-1] if self._segments else None
        if last is not None and last.size < SEGMENT_SIZE and not (last.path is None and self.disk_error is None):
            return last
        if self.disk_error is not None:
            return self._begin(None)
        try:
            return self._begin(self.folder / f"{self._number:08d}.gw")
        except OSError as error:
            self.disk_error = str(error)
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
            shutil.rmtree(self.folder, ignore_errors=True)
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


class Leftover:
    """The spool of a writer that has ended: what ``gradwatch sync`` delivers."""

    def __init__(self, folder: Path, held: int) -> None:
        self.folder = folder
        self.writer = folder.name
        self.damaged = 0  # bytes that were no whole frame: the tail torn by a crash, as a rule
        self._lock = held

    def frames(self) -> Iterator[bytes]:
        """Every whole frame, preamble first, then in order. Damaged bytes end a file: what follows them is lost."""
        paths = sorted(path for path in self.folder.glob("*.gw") if path.name != _PREAMBLE)
        for path in [self.folder / _PREAMBLE, *paths]:
            try:
                yield from self._read(path)
            except FileNotFoundError:
                continue

    def _read(self, path: Path) -> Iterator[bytes]:
        data = path.read_bytes()
        at = 0
        while at < len(data):
            try:
                size = frames.frame_size(data[at : at + frames.PREFIX_SIZE])
                frames.decode(data[at : at + size])
            except frames.FrameError as error:
                if error.code not in ("version", "kind", "header"):  # whole, but not for us to judge
                    self.damaged += len(data) - at
                    return
            yield data[at : at + size]
            at += size

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*.gw"))

    def close(self, *, delivered: bool) -> None:
        if delivered:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def leftovers(directory: Path) -> Iterator[Leftover]:
    """Spools in ``directory`` whose writers no longer live. Each stays locked until it is closed."""
    for folder in sorted(directory.iterdir()) if directory.is_dir() else []:
        if not folder.is_dir():
            continue
        try:
            held = lock(folder)
        except OSError:
            continue
        yield Leftover(folder, held)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def lock(folder: Path) -> int:
    """Hold ``folder`` until the process dies or the returned file is closed. Raises OSError when another holds it."""
    file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    return file
