"""The spool on a real disk: frames in order, a cap, disks that are full, go away and come back."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import stat
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import pytest
from gradwatch import frames, spool
from gradwatch.frames import Frame, Kind
from gradwatch.leftovers import leftovers
from gradwatch.spool import Spool
from gradwatch.spool_reader import Reader

GIB = 1 << 30
WRITER = "0123456789abcdef" * 2
ROWS = 3  # in a steps frame


def frame(seq: int, size: int = 100, kind: Kind = Kind.STEPS) -> bytes:
    """A frame as the hook writes them; frame ``seq`` of steps holds the steps from 3 x seq on."""
    steps = struct.pack(f"<{ROWS}q", *range(ROWS * seq, ROWS * seq + ROWS))
    return frames.encode(kind, {"writer": WRITER, "seq": seq, "rows": ROWS}, [steps, bytes(size)])


def read_frames(reader: Reader) -> list[Frame]:
    found: list[Frame] = []
    while (batch := reader.next_batch(1000)).data:
        some = list(frames.decode_all(batch.data))
        assert some[-1].header["seq"] == batch.last
        found += some
    return found


def read_all(reader: Reader) -> list[int]:
    return [found.header["seq"] for found in read_frames(reader)]


def check_accounts(found: list[Frame], produced: int, first: int = 0) -> tuple[int, int]:
    """Every seq once and in order, every row stored or counted, steps told truly; (stored, dropped) frames."""
    assert [one.header["seq"] for one in found] == list(range(first, first + produced))
    stored = [one for one in found if one.kind is not Kind.DROPPED]
    dropped = [one for one in found if one.kind is Kind.DROPPED]
    assert sum(one.header["rows"] for one in found) == ROWS * produced
    for one in dropped:
        at = one.header["seq"] * ROWS
        assert (one.header["first_step"], one.header["last_step"]) == (at, at + ROWS - 1)
    return len(stored), len(dropped)


def test_frames_are_read_in_order_while_more_come(tmp_path: Path) -> None:
    kept = Spool(tmp_path, WRITER, GIB)
    reader = Reader(kept)
    for seq in range(20):
        assert kept.append(frame(seq), seq)
    assert read_all(reader) == list(range(20))
    kept.append(frame(20, size=5000), 20)
    assert read_all(reader) == [20] and read_all(reader) == []


def test_acked_segments_go_and_a_new_reader_begins_at_the_oldest_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SEGMENT_SIZE", 1000)
    kept = Spool(tmp_path, WRITER, GIB)
    for seq in range(30):
        kept.append(frame(seq), seq)
    before = kept.size
    kept.acked(lambda first, last: last <= 15)
    assert kept.size < before
    left = read_all(Reader(kept))
    assert left[0] <= 16 and left[-1] == 29 and left == list(range(left[0], 30))


def test_files_are_for_their_user_only(tmp_path: Path) -> None:
    kept = Spool(tmp_path / "spool", WRITER, GIB)
    kept.append(frame(0), 0, preamble=True)
    kept.append(frame(1), 1)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in kept.folder.iterdir()}
    assert modes == {"lock": 0o600, "preamble.gw": 0o600, "00000001.gw": 0o600}
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700


def test_acked_ranges_free_segments_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_SIZE", 1000)
    kept = Spool(tmp_path, WRITER, GIB)
    for seq in range(40):
        kept.append(frame(seq), seq)
    reader = Reader(kept)
    assert reader.next_batch(1).last == 0
    kept.acked(lambda first, last: first >= 10 and last <= 30)
    left = read_all(reader)
    assert left[0] == 1 and left[-1] == 39 and 20 not in left and left == sorted(set(left))


def test_beyond_the_cap_the_oldest_steps_become_counted_tombstones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, produced = Spool(tmp_path, WRITER, 128 << 10), 300
    reader = Reader(kept)
    kinds = itertools.cycle([*[Kind.STEPS] * 5, Kind.SAMPLES, Kind.EVENT, Kind.SCALARS])
    made = [next(kinds) for _ in range(produced)]
    seen: list[Frame] = []
    for seq, kind in enumerate(made):
        assert kept.append(frame(seq, 400, kind), seq)
        if seq == 20:  # from now on the reader stands in a segment that is going to be written anew
            seen += frames.decode_all(reader.next_batch(4000).data)
    assert kept.size <= 128 << 10 and sum(path.stat().st_size for path in kept.folder.glob("*.gw")) == kept.size
    for found in (read_frames(Reader(kept)), seen + read_frames(reader)):
        assert [one.header["seq"] for one in found] == list(range(produced))
        assert sum(one.header["rows"] for one in found) == ROWS * produced
        for one, kind in zip(found, made, strict=True):
            dropped = one.kind is Kind.DROPPED
            assert one.kind is kind or (dropped and kind in (Kind.STEPS, Kind.SAMPLES))
            if dropped and kind is Kind.STEPS:
                steps = (one.header["first_step"], one.header["last_step"])
                assert steps == (ROWS * one.header["seq"], ROWS * one.header["seq"] + ROWS - 1)
                assert one.header["reason"] == "the spool was full (steps)"
        oldest_kept = min(one.header["seq"] for one in found[50:] if one.kind is Kind.STEPS)
        assert all(one.kind is not Kind.DROPPED for one in found[oldest_kept:])
    assert capsys.readouterr().err.count("make room") == 1


def test_when_all_detail_is_gone_logged_values_go_and_then_only_what_must_not_be_lost_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Spool(tmp_path, WRITER, 16 << 10)
    taken, seq = [], 0
    for _ in range(400):
        if kept.append(frame(seq, 200, Kind.SCALARS), seq):
            taken.append(seq)
            seq += 1
    found = read_frames(Reader(kept))
    assert [one.header["seq"] for one in found] == taken == list(range(seq)) and seq < 400
    assert {one.kind for one in found} == {Kind.DROPPED, Kind.SCALARS}
    assert kept.append(frame(seq, kind=Kind.EVENT), seq, reserved=True)
    assert read_all(Reader(kept))[-1] == seq


def test_memory_has_its_own_cap_and_the_same_accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MEMORY_CAP", 64 << 10)
    monkeypatch.setattr(spool, "MEMORY_SEGMENT", 8 << 10)
    (tmp_path / "file").write_text("not a folder")
    kept = Spool(tmp_path / "file", WRITER, GIB)
    assert kept.disk_error
    for seq in range(300):
        assert kept.append(frame(seq, 400), seq)
    stored, dropped = check_accounts(read_frames(Reader(kept)), 300)
    assert kept.size <= 64 << 10 and stored > 20 and dropped > 50


def test_without_a_disk_frames_wait_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    kept = Spool(tmp_path / "file", WRITER, GIB)
    assert kept.disk_error
    for seq in range(5):
        assert kept.append(frame(seq), seq, preamble=seq == 0)
    assert len(kept.preamble) == 1 and read_all(Reader(kept)) == [1, 2, 3, 4]


class Disk:
    """A real disk of 1 MiB, which can be filled; where mounting is not allowed, a limit on the size of files."""

    def __init__(self, folder: Path, *, mount: bool) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self._mount = folder, mount
        self._ballast, self._limit = folder / "ballast", resource.getrlimit(resource.RLIMIT_FSIZE)

    def __enter__(self) -> Self:
        if self._mount:
            subprocess.run([*TMPFS, str(self.folder)], check=True)
        return self

    def fill(self) -> None:
        if self._mount:
            self._ballast.write_bytes(bytes(700 << 10))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (15 << 10, self._limit[1]))

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limit)

    def __exit__(self, *_: object) -> None:
        self.free()
        if self._mount:
            subprocess.run(["umount", str(self.folder)], check=True)


TMPFS = ("mount", "-t", "tmpfs", "-o", "size=1m", "none")


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        if os.getuid() != 0 or subprocess.run([*TMPFS, folder], capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def tend_until_stored(kept: Spool, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while kept.disk_error is not None:
        kept.tend()
        assert time.monotonic() < until, kept.disk_error
        time.sleep(0.02)


@pytest.mark.parametrize("mount", [False, True] if can_mount() else [False])
def test_a_full_disk_is_tried_again_and_what_waited_in_memory_follows_in_order(
    mount: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(spool, "RETRY", 0.1)
    monkeypatch.setattr(spool, "SEGMENT_SIZE", 100 << 10)
    monkeypatch.setattr(spool, "MEMORY_SEGMENT", 20 << 10)
    with Disk(tmp_path / "disk", mount=mount) as disk:
        disk.fill()
        kept = Spool(disk.folder / "spool", WRITER, GIB)
        kept.append(frame(0), 0, preamble=True)
        for seq in range(1, 500):
            assert kept.append(frame(seq, 1000), seq)
            kept.tend()
        assert ("No space" if mount else "File too large") in str(kept.disk_error)
        kept.append(frame(500), 500, preamble=True)
        assert check_accounts(read_frames(Reader(kept)), 499, first=1) == (499, 0)
        disk.free()
        tend_until_stored(kept)
        for seq in range(501, 520):
            assert kept.append(frame(seq, 1000), seq)
        assert all(segment.is_stored for segment in kept.segments())
        assert read_all(Reader(kept)) == [*range(1, 500), *range(501, 520)]
        kept.close(delivered=False)
        (left,) = leftovers(disk.folder / "spool")
        found = [frames.decode(data).header["seq"] for data in left.frames()]
        left.close(delivered=False)
    assert found == [0, 500, *range(1, 500), *range(501, 520)]
    said = capsys.readouterr().err
    assert said.count("frames wait in memory") == 1 and said.count("can be written again") == 1


def test_a_folder_removed_in_mid_run_is_read_to_its_end_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "RETRY", 0.1)
    monkeypatch.setattr("gradwatch.claim.TOUCH", 0.1)
    kept = Spool(tmp_path / "spool", WRITER, GIB)
    kept.append(frame(0), 0, preamble=True)
    for seq in range(1, 4):
        kept.append(frame(seq), seq)
    shutil.rmtree(tmp_path / "spool")
    kept.append(frame(4), 4)
    assert read_all(Reader(kept)) == [1, 2, 3, 4]
    time.sleep(0.15)
    kept.tend()
    assert "was removed" in str(kept.disk_error)
    kept.append(frame(5), 5)
    tend_until_stored(kept)
    kept.append(frame(6), 6)
    kept.close(delivered=False)
    (left,) = leftovers(tmp_path / "spool")
    assert [frames.decode(data).header["seq"] for data in left.frames()] == list(range(7))
    left.close(delivered=True)
    assert not list((tmp_path / "spool").iterdir())


def test_at_the_end_a_disk_that_had_failed_is_tried_once_more(tmp_path: Path) -> None:
    blocking = tmp_path / "spool"
    blocking.write_text("not a folder")
    kept = Spool(blocking, WRITER, GIB)
    for seq in range(5):
        kept.append(frame(seq), seq, preamble=seq == 0)
    blocking.unlink()
    kept.close(delivered=False)
    (left,) = leftovers(blocking)
    assert [frames.decode(data).header["seq"] for data in left.frames()] == list(range(5))
    left.close(delivered=False)


def test_a_byte_that_rots_under_a_living_writer_costs_one_counted_frame(tmp_path: Path) -> None:
    kept = Spool(tmp_path, WRITER, GIB)
    for seq in range(20):
        kept.append(frame(seq), seq)
    path = kept.folder / "00000000.gw"
    damaged = bytearray(path.read_bytes())
    damaged[7 * len(frame(0)) + 50] ^= 1
    path.write_bytes(damaged)
    found = read_frames(Reader(kept))
    check_accounts(found, 20)
    assert [one.header["seq"] for one in found if one.kind is Kind.DROPPED] == [7]


def test_a_reader_behind_the_backlog_sees_only_what_comes_after(tmp_path: Path) -> None:
    kept = Spool(tmp_path, WRITER, GIB)
    for seq in range(10):
        kept.append(frame(seq), seq)
    reader = Reader(kept, behind=True)
    assert reader.begun == 9 and read_all(reader) == []
    for seq in range(10, 15):
        kept.append(frame(seq), seq)
    assert read_all(reader) == [10, 11, 12, 13, 14]
