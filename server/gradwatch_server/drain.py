"""Leftover spools in GRADWATCH_DIR, delivered by ``gradwatch sync``: at the start, and whenever a writer has died."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from .settings import Settings

LOOK_SECONDS: Final = 5.0  # between two looks
_MOST_SECONDS: Final = 600.0  # between two tries of what could not be delivered
_LIVING_SECONDS: Final = 120.0  # for which another host's lock file counts since it was touched


class Drain:
    """Looks for spools that nobody writes any more, and has one process at a time deliver them."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._spool = settings.dir / "spool"
        self._environment = dict(os.environ)
        if settings.secret:
            self._environment["GRADWATCH_TOKEN"] = settings.secret  # not on the command line, where others can read it
        self._command = [sys.executable, "-m", "gradwatch.cli", "sync", str(self._spool), "--server", url]
        self._process: subprocess.Popen[bytes] | None = None

    async def run(self) -> None:
        """Look and deliver until cancelled."""
        tried, again_at, wait = set[str](), 0.0, LOOK_SECONDS
        while True:
            left = await asyncio.to_thread(leftover_names, self._spool)
            if left - tried:
                wait = LOOK_SECONDS
            if left - tried or (left and time.monotonic() >= again_at):
                await self._deliver()
                # What could not be delivered is tried again, ever more rarely: a server that is full may have room.
                tried, wait = left, min(2 * wait, _MOST_SECONDS)
                again_at = time.monotonic() + wait
            await asyncio.sleep(LOOK_SECONDS)

    async def _deliver(self) -> None:
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the server, which then ends it
            )
            while self._process.poll() is None:
                await asyncio.sleep(0.2)

    def stop(self) -> None:
        """End a delivery that is under way; what is left waits for the next start."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(3)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def leftover_names(spool: Path) -> set[str]:
    """Folders in ``spool`` with frames in them that nobody seems to write; ``gradwatch sync`` looks more closely."""
    try:
        return {folder.name for folder in spool.iterdir() if _is_left(folder)}
    except OSError:
        return set()


def _is_left(folder: Path) -> bool:
    if not re.fullmatch(r"[0-9a-f]{32}", folder.name) or not (folder / "preamble.gw").exists():
        return False
    lock = folder / "lock"
    try:
        with lock.open("rb") as file:
            if not try_lock(file.fileno()):
                return False
            host = re.search(rb'"host": "([^"]+)"', file.read(4096))
        elsewhere = host is not None and host[1].decode(errors="replace") != _host()
        return not (elsewhere and time.time() - lock.stat().st_mtime < _LIVING_SECONDS)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _host() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file until it is closed; False where another holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
