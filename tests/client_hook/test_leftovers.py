"""Spools of ended writers: found, read up to a torn tail, and taken away without anything else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gradwatch import frames
from gradwatch.cli import main
from gradwatch.frames import Kind
from gradwatch.leftovers import leftovers
from gradwatch.segment import segment_files
from gradwatch.spool import Spool

WRITER = "0123456789abcdef" * 2


def frame(seq: int) -> bytes:
    return frames.encode(Kind.STEPS, {"writer": WRITER, "seq": seq}, [bytes(100)])


def test_a_dead_writers_spool_is_found_and_its_torn_tail_left_out(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from gradwatch import frames; from gradwatch.frames import Kind\n"
        "from gradwatch.spool import Spool\n"
        "s = Spool(Path(sys.argv[1]), sys.argv[2], 1 << 30)\n"
        "for q in range(5): s.append(frames.encode(Kind.EVENT, {'writer': 'w', 'seq': q}), q, preamble=q == 0)\n"
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), WRITER], timeout=60)
    with open(tmp_path / WRITER / "00000001.gw", "ab") as file:
        file.write(frame(5)[:-3])
    (left,) = leftovers(tmp_path)
    assert [frames.decode(data).header["seq"] for data in left.frames()] == [0, 1, 2, 3, 4]
    assert left.damaged == len(frame(5)) - 3
    left.close(delivered=True)
    assert not (tmp_path / WRITER).exists()


def test_rot_in_mid_file_costs_what_it_hit_and_nothing_behind_it(tmp_path: Path) -> None:
    kept = Spool(tmp_path, WRITER, 16 << 10)  # several segments
    kept.append(frame(0), 0, preamble=True)
    for seq in range(1, 60):
        kept.append(frame(seq), seq)
    kept.close(delivered=False)
    files = segment_files(kept.folder)
    assert len(files) > 3
    first, second = bytearray(files[0].read_bytes()), bytearray(files[1].read_bytes())
    first[-20] ^= 1  # the last frame of a file
    second[10] ^= 1  # and the first of the next, in its length
    files[0].write_bytes(first)
    files[1].write_bytes(second)
    (left,) = leftovers(tmp_path)
    found = [frames.decode(data) for data in left.frames()]
    left.close(delivered=False)
    assert [one.header["seq"] for one in found] == list(range(60))
    lost = int(files[1].stem)
    assert [one.header["seq"] for one in found if one.kind is Kind.DROPPED] == [lost - 1, lost]
    assert left.damaged == 2 * len(frame(1))


def test_a_living_writers_spool_is_left_alone(tmp_path: Path) -> None:
    kept = Spool(tmp_path, WRITER, 1 << 30)
    kept.append(frame(0), 0)
    assert list(leftovers(tmp_path)) == []
    kept.close(delivered=False)
    (left,) = leftovers(tmp_path)
    left.close(delivered=False)
    assert (tmp_path / WRITER).exists()


def test_no_folder_means_no_leftovers(tmp_path: Path) -> None:
    assert list(leftovers(tmp_path / "nothing")) == []


def test_folders_that_no_writer_made_are_not_touched(tmp_path: Path) -> None:
    for folder in ("thesis", "f" * 32):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "chapter.txt").write_text("years of work")
    assert list(leftovers(tmp_path)) == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["chapter.txt", "chapter.txt", "f" * 32, "thesis"]


def test_what_others_put_beside_the_frames_stays(tmp_path: Path) -> None:
    kept = Spool(tmp_path, WRITER, 1 << 30)
    kept.append(frame(0), 0)
    kept.close(delivered=False)
    (kept.folder / "notes.txt").write_text("mine")
    (left,) = leftovers(tmp_path)
    left.close(delivered=True)
    assert [path.name for path in kept.folder.iterdir()] == ["notes.txt"]


def test_a_wrong_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sync", str(tmp_path / "typo")])
    assert ended.value.code == 1 and "typo is no folder" in capsys.readouterr().err
