"""GRADWATCH_DIR: can the spool be written, by whom can it be read, how much room is there, what waits in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from gradwatch.health import Check
from gradwatch.leftovers import leftovers
from gradwatch.segment import own_files
from gradwatch.settings import Settings


def check_storage(settings: Settings) -> list[Check]:
    """Nothing is left behind: not even the folder is made."""
    first = _writable(settings.directory)
    if first.state == "fail":
        return [first]
    return [first, *_private(settings.directory), _room(settings), check_spool(settings.spool)]


def _existing(folder: Path) -> Path:
    """``folder``, or the nearest one above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _writable(directory: Path) -> Check:
    there = _existing(directory)
    advice = "set GRADWATCH_DIR to a folder of yours on a local disk"
    if not there.is_dir():
        return Check("directory", "fail", f"{there} is no folder", advice)
    try:
        with tempfile.TemporaryFile(dir=there, prefix=".gradwatch-") as file:
            file.write(b"gradwatch")
    except OSError as error:
        return Check("directory", "fail", f"{there} cannot be written: {error.strerror or error}", advice)
    if there != directory:
        return Check("directory", "ok", f"{directory} will be made by the first run")
    return Check("directory", "ok", f"{directory} can be written")


def _private(directory: Path) -> list[Check]:
    checks = []
    secret = directory / "server.json"
    for path, mode in ((directory, "700"), (directory / "spool", "700"), (secret, "600")):
        try:
            found = path.stat()
        except OSError:
            continue
        if hasattr(os, "getuid") and found.st_uid not in (os.getuid(), 0):
            text = f"{path} belongs to another user (number {found.st_uid})"
            checks.append(Check("directory", "warn", text, "set GRADWATCH_DIR to a folder of yours"))
        elif os.name == "posix" and found.st_mode & 0o077:
            state = f"{path} can be reached by other users (mode {found.st_mode & 0o777:o})"
            checks.append(Check("directory", "warn", state, f"chmod {mode} {path}"))
    return checks


def _room(settings: Settings) -> Check:
    free, cap = shutil.disk_usage(_existing(settings.directory)).free, settings.spool_cap
    text = f"{_size(free)} free; a run keeps up to {_size(cap)} while no server takes it"
    if free < cap // 16:
        return Check("disk", "fail", text, "free some space, or set GRADWATCH_DIR to a larger disk")
    if free < cap:
        return Check("disk", "warn", text, "free some space, or keep a server running that takes the frames")
    return Check("disk", "ok", text)


def check_spool(spool: Path) -> Check:
    """What ended runs have left, and what running ones have not delivered yet."""
    try:
        left = list(leftovers(spool))
        sizes = [spooled.size for spooled in left]
        ended = {spooled.writer for spooled in left}
        for spooled in left:
            spooled.close(delivered=False)
        folders = [folder for folder in spool.iterdir() if folder.is_dir()] if spool.is_dir() else []
        running = [folder for folder in folders if folder.name not in ended and own_files(folder)]
        waiting = sum(path.stat().st_size for folder in running for path in own_files(folder))
    except OSError as error:
        return Check("spool", "fail", f"{spool} cannot be read: {error.strerror or error}", f"ls -la {spool}")
    living = f"{len(running)} of running trainings with {_size(waiting)}" if running else "none of running trainings"
    if left:
        ended_ones = f"the spool{'s' if len(left) > 1 else ''} of {len(left)} ended run{'s' if len(left) > 1 else ''}"
        text = f"{ended_ones} with {_size(sum(sizes))} to be delivered, {living}"
        return Check(
            "spool", "warn", text, "a running `gradwatch serve` takes them by itself, `gradwatch sync` at any time"
        )
    return Check("spool", "ok", f"nothing left by ended runs, {living}")


def _size(count: int) -> str:
    for unit, bytes_ in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count} bytes"
