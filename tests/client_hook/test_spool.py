"""The spool on a real disk: frames in order, torn tails, full disks, locks."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from gradwatch import frames, spool
from gradwatch.frames import Kind
from gradwatch.spool import Reader, Spool, leftovers

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


def test_beyond_the_cap_nothing_is_taken(tmp_path: Path) -> None:
    kept = Spool(tmp_path, "w", 1000)
    taken = [kept.append(frame(seq), seq) for seq in range(20)]
    assert taken[0] and not taken[-1]
    assert read_all(Reader(kept)) == [seq for seq in range(20) if taken[seq]]


def test_without_a_disk_frames_wait_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    kept = Spool(tmp_path / "file", "w", GIB)
    assert kept.disk_error
    for seq in range(5):
        assert kept.append(frame(seq), seq, preamble=seq == 0)
    assert len(kept.preamble) == 1 and read_all(Reader(kept)) == [1, 2, 3, 4]


def test_a_disk_that_fails_in_mid_run_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Spool(tmp_path, "w", GIB)
    kept.append(frame(0), 0)

    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gradwatch.spool.os.write", full)
    assert kept.append(frame(1), 1) and kept.append(frame(2), 2)
    assert "No space" in str(kept.disk_error)
    assert read_all(Reader(kept)) == [0, 1, 2]


def test_a_dead_writers_spool_is_found_and_its_torn_tail_left_out(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from gradwatch import frames; from gradwatch.frames import Kind\n"
        "from gradwatch.spool import Spool\n"
        "s = Spool(Path(sys.argv[1]), 'w', 1 << 30)\n"
        "for q in range(5): s.append(frames.encode(Kind.EVENT, {'writer': 'w', 'seq': q}), q, preamble=q == 0)\n"
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    with open(tmp_path / "w" / "00000000.gw", "ab") as file:
        file.write(frame(5)[:-3])
    (left,) = leftovers(tmp_path)
    assert [frames.decode(data).header["seq"] for data in left.frames()] == [0, 1, 2, 3, 4]
    assert left.damaged == len(frame(5)) - 3
    left.close(delivered=True)
    assert not (tmp_path / "w").exists()


def test_a_living_writers_spool_is_left_alone(tmp_path: Path) -> None:
    kept = Spool(tmp_path, "w", GIB)
    assert list(leftovers(tmp_path)) == []
    kept.close(delivered=False)
    (left,) = leftovers(tmp_path)
    left.close(delivered=False)
    assert (tmp_path / "w").exists()


def test_no_folder_means_no_leftovers(tmp_path: Path) -> None:
    assert list(leftovers(tmp_path / "nothing")) == []
