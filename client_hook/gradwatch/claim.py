"""Whose a writer's folder is: locked while its process lives and, for other hosts, a file touched every few seconds."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Final

LOCK: Final = "lock"
TOUCH: Final = 10.0  # seconds between two touches of the lock file
LIVING: Final = 120.0  # seconds since the last touch for which another host's writer counts as living
_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # as on some NFS mounts


class Claimed(OSError):
    """Another living process has the folder."""


class Claim:
    """Holds ``folder`` until the process dies or ``release``. Raises Claimed, or OSError when the disk fails.

    Locks do not always reach other hosts, as on NFS homes. So the lock file says on which host its holder lives, and
    a folder of another host's counts as living while that file has been touched within ``LIVING`` seconds.
    """

    def __init__(self, folder: Path) -> None:
        self._file: int | None = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        self._path = folder / LOCK
        try:
            locks_work = _lock(self._file)
            if not locks_work or _host_in(self._file) not in ("", _host()):
                _refuse_if_touched(self._file, folder)
            os.ftruncate(self._file, 0)
            os.write(
                self._file, json.dumps({"host": _host(), "name": socket.gethostname(), "pid": os.getpid()}).encode()
            )
        except OSError:
            self.release()
            raise
        self._touched = time.monotonic()

    def touch(self) -> None:
        """Say that its holder lives, every few seconds. Raises OSError when the folder is gone or cannot be written."""
        if self._file is None or time.monotonic() < self._touched + TOUCH:
            return
        self._touched = time.monotonic()
        if not self.holds():
            raise FileNotFoundError(f"{self._path.parent} was removed")
        os.utime(self._path)

    def holds(self) -> bool:
        """Whether its lock file is still the one that others find in the folder."""
        with contextlib.suppress(OSError):
            return self._file is not None and os.path.samestat(os.stat(self._path), os.fstat(self._file))
        return False

    def release(self, *, ended: bool = False) -> None:
        """Let go of the folder, and of nothing else. ``ended``: other hosts need not wait until it has grown old."""
        if self._file is not None:
            if ended:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def _host() -> str:
    """What no other running machine calls itself; containers on one machine share it, and its locks."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def _host_in(file: int) -> str:
    try:
        return str(json.loads(os.read(file, 4096))["host"])
    except (ValueError, KeyError, TypeError):
        return ""
    finally:
        os.lseek(file, 0, os.SEEK_SET)


def _refuse_if_touched(file: int, folder: Path) -> None:
    if _host_in(file) and _age(file, folder) < LIVING:
        raise Claimed(f"{folder} belongs to a writer on another host")


def _age(file: int, folder: Path) -> float:
    """Seconds since the file was touched, by the clock of the file system: hosts' own clocks may differ by minutes."""
    probe = folder / f"clock-{os.getpid()}"
    try:
        with open(probe, "wb") as other:
            now = os.fstat(other.fileno()).st_mtime
    finally:
        probe.unlink(missing_ok=True)
    return now - os.fstat(file).st_mtime


def _lock(file: int) -> bool:
    """Whether locks work here; raises Claimed when another process holds this one."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise Claimed(str(error)) from None
    return True
