"""Whose a folder is: one process at a time, here by a lock, on other hosts by a file that is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gradwatch import claim
from gradwatch.claim import LOCK, Claim, Claimed


def elsewhere(folder: Path, seconds_ago: float) -> None:
    """What a writer on another host has left, last touched some seconds ago."""
    (folder / LOCK).write_text(json.dumps({"host": "another machine's boot", "name": "node7", "pid": 1}))
    os.utime(folder / LOCK, (time.time() - seconds_ago,) * 2)


def test_one_process_at_a_time_has_it_and_a_killed_one_no_more(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from gradwatch.claim import Claim\n"
        "claim = Claim(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(Claimed):
            Claim(tmp_path)
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == holder.pid
        holder.kill()
    Claim(tmp_path).release()


def test_a_folder_of_another_host_is_its_own_while_it_is_touched(tmp_path: Path) -> None:
    elsewhere(tmp_path, claim.LIVING - 20)
    with pytest.raises(Claimed, match="another host"):
        Claim(tmp_path)
    assert "another machine" in (tmp_path / LOCK).read_text() and [path.name for path in tmp_path.iterdir()] == [LOCK]
    elsewhere(tmp_path, claim.LIVING + 20)
    Claim(tmp_path).release()


def test_a_holder_that_ended_need_not_be_waited_for(tmp_path: Path) -> None:
    elsewhere(tmp_path, claim.LIVING + 20)
    Claim(tmp_path).release(ended=True)
    assert (tmp_path / LOCK).read_bytes() == b""


def test_touching_keeps_it_young_and_notices_that_the_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Claim(tmp_path)
    os.utime(tmp_path / LOCK, (0, 0))
    held.touch()
    assert (tmp_path / LOCK).stat().st_mtime == 0  # not at every call
    monkeypatch.setattr(claim, "TOUCH", 0.0)
    held.touch()
    assert time.time() - (tmp_path / LOCK).stat().st_mtime < 60 and held.holds()
    (tmp_path / LOCK).rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        held.touch()
    assert not held.holds()
    held.release()
