"""One run of frames in the spool: in a file or, where the disk takes nothing, in memory."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gradwatch.claim import LOCK

PREAMBLE: Final = "preamble.gw"
_PIECE: Final = 256 << 10  # bytes copied at a time


class Rewritten(Exception):
    """The bytes that were asked for are others by now."""


class Closed(Exception):
    """The segment has been let go."""


class Segment:
    """Appended to by one thread and read by another. The file stays open, so that it can be read after its removal.

    ``first`` and ``last``: seqs of its frames; its file is named after the first, so that what a damaged beginning
    has taken is known. ``version``: changes when its bytes do; ``thinned``: how much of its detail has been let go.
    """

    def __init__(self, first: int, path: Path | None) -> None:
        self.first = first
        self.last = first - 1
        self.size = 0
        self.version = 0
        self.thinned = 0
        self._path = path
        self._closed = False
        self._memory = bytearray()
        self._guard = threading.Lock()  # over the change from one file, or memory, to another while somebody reads
        self._file: int | None = None
        if path is not None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    @property
    def in_memory(self) -> bool:
        return self._path is None

    @property
    def is_stored(self) -> bool:
        """Whether it would survive the process."""
        return self._file is not None and os.fstat(self._file).st_nlink > 0

    def append(self, data: bytes, seq: int) -> None:
        """Raises OSError when the disk does not take all of it; then nothing of it stays."""
        if self._file is None:
            with self._guard:
                self._memory += data
        else:
            self._write(self._file, data)
        self.size += len(data)
        self.last = seq

    def _write(self, file: int, data: bytes) -> None:
        try:
            _write_all(file, data)
        except OSError:
            os.ftruncate(file, self.size)
            raise

    def read(self, at: int, most: int, version: int) -> bytes:
        """Bytes from ``at`` up to what has been appended; none where the disk does not give them.

        Raises Rewritten when they are no longer those of ``version``, Closed when there are none any more.
        """
        with self._guard:
            if self._closed:
                raise Closed
            if version != self.version:
                raise Rewritten
            size = max(0, min(self.size, at + most) - at)
            if self._file is None:
                return bytes(memoryview(self._memory)[at : at + size])
            with contextlib.suppress(OSError):
                return read_at(self._file, at, size)
        return b""

    def store(self, path: Path) -> None:
        """Bring it into a file, out of memory or out of one that was removed. Raises OSError; then it is as it was."""
        pieces = (self.read(at, _PIECE, self.version) for at in range(0, self.size, _PIECE))
        file = write_beside(path, pieces)
        if os.fstat(file).st_size != self.size:
            os.close(file)
            raise OSError(f"what was in {path.name} can no longer be read")
        self._change(path, file, self.version)

    def rewrite(self, pieces: Iterable[bytes]) -> None:
        """Put other bytes in the place of its own, for the same seqs. Raises OSError; then it is as it was."""
        kept = list(pieces)
        if self._path is None:
            with self._guard:
                self._memory = bytearray().join(kept)
                self.size, self.version = len(self._memory), self.version + 1
        else:
            self._change(self._path, write_beside(self._path, kept), self.version + 1)

    def _change(self, path: Path, file: int, version: int) -> None:
        with self._guard:
            before, self._file, self._path = self._file, file, path
            self.size, self.version = os.fstat(file).st_size, version
            self._memory = bytearray()
        if before is not None:
            os.close(before)

    def close(self) -> None:
        with self._guard:
            self._closed = True
            self._memory = bytearray()
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def delete(self) -> None:
        self.close()
        if self._path is not None:
            with contextlib.suppress(OSError):  # a disk that fails now is no reason to keep what is delivered
                self._path.unlink(missing_ok=True)


def segment_path(folder: Path, first: int) -> Path:
    return folder / f"{first:08d}.gw"


def segment_files(folder: Path) -> list[Path]:
    """The segments in a writer's folder, in order."""
    return sorted((path for path in folder.glob("*.gw") if path.stem.isdigit()), key=lambda path: int(path.stem))


def own_files(folder: Path) -> list[Path]:
    """The frame files of a writer's folder: preamble first, then the segments in order."""
    return [path for path in (folder / PREAMBLE, *segment_files(folder)) if path.exists()]


def delete_folder(folder: Path) -> None:
    """Take away what a spool put into ``folder``, and the folder if nothing else lies in it."""
    with contextlib.suppress(OSError):
        for path in [*own_files(folder), *folder.glob("*.new"), *folder.glob("clock-*"), folder / LOCK]:
            path.unlink(missing_ok=True)
        folder.rmdir()


def write_beside(path: Path, pieces: Iterable[bytes]) -> int:
    """Put ``pieces`` in the place of the file at ``path``, at once or not at all; the open file. Raises OSError."""
    new = path.with_suffix(".new")
    file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        for piece in pieces:
            for at in range(0, len(piece), _PIECE):
                _write_all(file, piece[at : at + _PIECE])
        os.replace(new, path)
    except OSError:
        os.close(file)
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    return file


def _write_all(file: int, data: bytes) -> None:
    while data:  # a disk that is nearly full takes a part, and says why only when asked again
        data = data[os.write(file, data) :]


def read_at(file: int, at: int, size: int) -> bytes:
    """Bytes of an open file. For one thread at a time where the system has no ``pread``."""
    if hasattr(os, "pread"):
        return os.pread(file, size, at)
    os.lseek(file, at, os.SEEK_SET)
    return os.read(file, size)


def private(path: str, flags: int) -> int:
    """Opener of files that only their user may read."""
    return os.open(path, flags, 0o600)
