"""Spools whose writers have ended: what ``gradwatch sync`` delivers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from gradwatch import frames
from gradwatch.segment import delete_folder, lock, own_files


class Leftover:
    """One ended writer's spool; locked until it is closed."""

    def __init__(self, folder: Path, held: int) -> None:
        self.folder = folder
        self.writer = folder.name
        self.damaged = 0  # bytes that were no whole frame: the tail torn by a crash, as a rule
        self._lock = held

    def frames(self) -> Iterator[bytes]:
        """Every whole frame, preamble first, then in order. Damaged bytes end a file: what follows them is lost."""
        for path in own_files(self.folder):
            yield from self._read(path)

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
        return sum(path.stat().st_size for path in own_files(self.folder))

    def close(self, *, delivered: bool) -> None:
        """Let go of the folder; take its frames away once they are delivered."""
        if delivered:
            delete_folder(self.folder)
        os.close(self._lock)


def leftovers(directory: Path) -> Iterator[Leftover]:
    """Spools in ``directory`` whose writers no longer live. Folders that no writer made are not touched."""
    for folder in sorted(directory.iterdir()) if directory.is_dir() else []:
        if not (folder.is_dir() and re.fullmatch(r"[0-9a-f]{32}", folder.name) and own_files(folder)):
            continue
        try:
            held = lock(folder)
        except OSError:
            continue
        yield Leftover(folder, held)
