"""The spool on a real disk: frames in order, torn tails, full disks, locks."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
from gradwatch import frames, spool
from gradwatch.frames import Kind
from gradwatch.spool import Reader, Spool

GIB = 1 << 30


def frame(seq: int, size: int = 100) -> bytes:
    return frames.encode(Kind.STEPS, {"writer": "w", "seq": seq}, [bytes(size)])


def read_all(reader: Reader) -> list[int]:
    seqs: list[int] = []
    while True:
        data, last = reader.next_batch(1000)
        if not data:
            return seqs
        batch = [found.header["seq"] for found in frames.decode_all(data)]
        assert batch[-1] == last
        seqs += batch


def test_frames_are_read_in_order_while_more_come(tmp_path: Path) -> None:
    kept = Spool(tmp_path, "w", GIB)
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
    kept = Spool(tmp_path, "w", GIB)
    for seq in range(30):
        kept.append(frame(seq), seq)
    before = kept.size
    kept.acked(15)
    assert kept.size < before
    left = read_all(Reader(kept))
    assert left[0] <= 16 and left[-1] == 29 and left == list(range(left[0], 30))


def test_files_are_for_their_user_only(tmp_path: Path) -> None:
    kept = Spool(tmp_path / "spool", "w", GIB)
    kept.append(frame(0), 0, preamble=True)
    kept.append(frame(1), 1)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in kept.folder.iterdir()}
    assert modes == {"lock": 0o600, "preamble.gw": 0o600, "00000000.gw": 0o600}
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700


def test_beyond_the_cap_only_what_must_not_be_lost_is_taken(tmp_path: Path) -> None:
    kept = Spool(tmp_path, "w", 1000)
    taken = [kept.append(frame(seq), seq) for seq in range(20)]
    assert taken[0] and not taken[-1]
    assert kept.append(frame(20), 20, reserved=True)
    assert read_all(Reader(kept)) == [*(seq for seq in range(20) if taken[seq]), 20]


def test_without_a_disk_frames_wait_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    kept = Spool(tmp_path / "file", "w", GIB)
    assert kept.disk_error
    for seq in range(5):
        assert kept.append(frame(seq), seq, preamble=seq == 0)
    assert len(kept.preamble) == 1 and read_all(Reader(kept)) == [1, 2, 3, 4]


def test_a_disk_that_fails_in_mid_run_keeps_what_it_has_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Spool(tmp_path, "w", GIB)
    kept.append(frame(0), 0)

    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gradwatch.segment.os.write", full)
    assert kept.append(frame(1), 1) and kept.append(frame(2), 2)
    assert "No space" in str(kept.disk_error)
    assert read_all(Reader(kept)) == [0, 1, 2]
    assert capsys.readouterr().err.count("frames wait in memory") == 1


def test_memory_has_its_own_cap_whatever_lies_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MEMORY_CAP", 1000)
    kept = Spool(tmp_path, "w", GIB)
    for seq in range(20):
        kept.append(frame(seq), seq)
    kept._disk_failed(OSError("planted"))
    assert kept.append(frame(20), 20) and kept.append(frame(21), 21)


def test_a_folder_removed_in_mid_run_is_still_read_to_its_end(tmp_path: Path) -> None:
    kept = Spool(tmp_path, "w", GIB)
    for seq in range(4):
        kept.append(frame(seq), seq)
    shutil.rmtree(kept.folder)
    kept.append(frame(4), 4)
    assert read_all(Reader(kept)) == [0, 1, 2, 3, 4]
