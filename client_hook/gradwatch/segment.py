"""One run of frames in the spool: in a file or, where the disk takes nothing, in memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PREAMBLE = "preamble.gw"
_LOCK = "lock"


class Segment:
    """Appended to by one thread and read by another. The file stays open, so that it can be read after its removal."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.size = 0
        self.last_seq = -1
        self._memory = bytearray()
        self._file: int | None = None
        if path is not None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

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
        size = min(self.size, at + most) - at
        if self.path is None or self._file is None:
            return bytes(self._memory[at : at + size])
        if hasattr(os, "pread"):
            return os.pread(self._file, size, at)
        with open(self.path, "rb") as file:
            file.seek(at)
            return file.read(size)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def delete(self) -> None:
        self.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def own_files(folder: Path) -> list[Path]:
    """The frame files of a writer's folder: preamble first, then the segments in order."""
    segments = sorted(path for path in folder.glob("*.gw") if path.stem.isdigit())
    return [path for path in (folder / PREAMBLE, *segments) if path.exists()]


def delete_folder(folder: Path) -> None:
    """Take away what a spool put into ``folder``, and the folder if nothing else lies in it."""
    for path in [*own_files(folder), folder / _LOCK]:
        path.unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError:
        return


def private(path: str, flags: int) -> int:
    """Opener of files that only their user may read."""
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
