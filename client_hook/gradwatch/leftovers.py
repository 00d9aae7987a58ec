"""Spools whose writers have ended: what ``gradwatch sync`` delivers."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from gradwatch import frames
from gradwatch.claim import Claim
from gradwatch.segment import PREAMBLE, delete_folder, own_files, read_at, segment_files
from gradwatch.walk import NOTHING, Walk, intact


class Leftover:
    """One ended writer's spool; nobody else's until it is closed."""

    def __init__(self, folder: Path, claim: Claim) -> None:
        self.folder = folder
        self.writer = folder.name
        self.damaged = 0  # bytes that were no whole frame, as far as it has been read
        self.preamble = list(_whole_frames(folder / PREAMBLE))
        self.preamble_seqs = {seq for data in self.preamble if (seq := frames.seq_of(data)) is not None}
        self._claim = claim

    def segments(self) -> Iterator[LeftSegment]:
        """Its segments, oldest first; each is closed when the next is asked for."""
        files = segment_files(self.folder)
        for number, path in enumerate(files, 1):
            # The last one ends where it ends: a tail torn by a crash had not been produced.
            last = int(files[number].stem) - 1 if number < len(files) else -1
            with open(path, "rb") as file:
                segment = LeftSegment(path, file.fileno(), last)
                segment.walk = Walk(segment, self.writer, self.preamble_seqs)
                yield segment
                self.damaged += segment.walk.damaged

    def frames(self) -> Iterator[bytes]:
        """Every whole frame, preamble first, then in order; tombstones for those that were damaged."""
        yield from self.preamble
        for segment in self.segments():
            while (batch := segment.walk.next(64 << 10)) != NOTHING:
                at = 0
                while at < len(batch.data):
                    size = frames.frame_size(batch.data[at : at + frames.PREFIX_SIZE])
                    yield batch.data[at : at + size]
                    at += size

    @property
    def size(self) -> int:
        return size_of(self.folder)

    def touch(self) -> None:
        """Say to other hosts that somebody is at it."""
        self._claim.touch()

    def close(self, *, delivered: bool) -> None:
        """Let go of the folder; take its frames away once they are delivered."""
        if delivered:
            delete_folder(self.folder)
        self._claim.release(ended=True)


class LeftSegment:
    """One file of a leftover spool, read piece by piece."""

    walk: Walk

    def __init__(self, path: Path, file: int, last: int) -> None:
        self.path = path
        self.first, self.last = int(path.stem), last
        self.size = os.fstat(file).st_size
        self.version = 0
        self._file = file

    def read(self, at: int, most: int, version: int) -> bytes:
        return read_at(self._file, at, min(self.size - at, most)) if at < self.size else b""


def writers_in(directory: Path) -> list[Path]:
    """The folders of writers, living or not. Folders that no writer made are left out."""
    found = sorted(directory.iterdir()) if directory.is_dir() else []
    return [path for path in found if path.is_dir() and re.fullmatch(r"[0-9a-f]{32}", path.name) and own_files(path)]


def size_of(folder: Path) -> int:
    """Bytes of frames in a writer's folder."""
    size = 0
    for path in own_files(folder):
        with contextlib.suppress(OSError):  # delivered by another just now
            size += path.stat().st_size
    return size


def leftover(folder: Path) -> Leftover | None:
    """A writer's folder as a leftover, unless the writer, or another who delivers it, still lives."""
    try:
        claim = Claim(folder)
    except OSError:
        return None
    if not own_files(folder):  # it has just been delivered by another
        delete_folder(folder)
        claim.release()
        return None
    return Leftover(folder, claim)


def leftovers(directory: Path) -> Iterator[Leftover]:
    """Spools in ``directory`` whose writers no longer live."""
    for folder in writers_in(directory):
        found = leftover(folder)
        if found is not None:
            yield found


def _whole_frames(path: Path) -> Iterator[bytes]:
    data = path.read_bytes() if path.exists() else b""
    while (end := intact(data, 1)[1]) > 0:
        yield data[:end]
        data = data[end:]
