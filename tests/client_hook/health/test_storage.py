"""GRADWATCH_DIR: whether it takes a spool, who else reads it, and what waits in it; looked at without a trace."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from gradwatch import frames
from gradwatch.frames import Kind
from gradwatch.health import Check
from gradwatch.health.storage import check_storage
from gradwatch.settings import SPOOL_CAP, Settings
from gradwatch.spool import Spool


def checked(directory: Path) -> dict[str, Check]:
    """By name; the last of several."""
    settings = Settings.gather(environment={"GRADWATCH_DIR": str(directory)})
    return {check.name: check for check in check_storage(settings)}


def test_a_directory_to_be_made_is_in_order_and_not_made(tmp_path: Path) -> None:
    checks = checked(tmp_path / "new" / "gradwatch")
    assert {check.state for check in checks.values()} <= {"ok", "warn"} and checks["directory"].state == "ok"
    assert "will be made" in checks["directory"].text and list(tmp_path.iterdir()) == []


def test_a_private_directory_is_in_order_and_left_as_it_was(tmp_path: Path) -> None:
    directory = tmp_path / "gradwatch"
    directory.mkdir(mode=0o700)
    checks = checked(directory)
    assert checks["directory"].state == checks["spool"].state == "ok" and list(directory.iterdir()) == []
    assert "can be written" in checks["directory"].text


@pytest.mark.parametrize("below", [".", "deeper/down"])
def test_a_file_in_its_place_fails(below: str, tmp_path: Path) -> None:
    (tmp_path / "gradwatch").write_text("a file")
    checks = checked(tmp_path / "gradwatch" / below)
    assert list(checks) == ["directory"] and checks["directory"].state == "fail"
    assert "set GRADWATCH_DIR" in checks["directory"].advice


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel's own read-only folder")
def test_a_directory_that_takes_no_file_fails() -> None:
    checks = checked(Path("/proc/self"))
    assert checks["directory"].state == "fail" and "cannot be written" in checks["directory"].text


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_what_others_can_read_is_told(tmp_path: Path) -> None:
    directory = tmp_path / "gradwatch"
    directory.mkdir()
    directory.chmod(0o755)
    check = checked(directory)["directory"]
    assert check.state == "warn" and check.advice == f"chmod 700 {directory}" and "mode 755" in check.text
    directory.chmod(0o700)
    (directory / "server.json").write_text("{}")
    (directory / "server.json").chmod(0o640)
    assert checked(directory)["directory"].advice == f"chmod 600 {directory / 'server.json'}"


@pytest.mark.parametrize(("free", "state"), [(SPOOL_CAP * 4, "ok"), (SPOOL_CAP // 2, "warn"), (1 << 20, "fail")])
def test_little_room_is_told(free: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=free * 3, used=free * 2, free=free))
    assert checked(tmp_path)["disk"].state == state


def test_waiting_spools_are_counted_and_left_to_sync(tmp_path: Path) -> None:
    directory = tmp_path / "gradwatch"
    ended, living = (Spool(directory / "spool", writer * 16, 1 << 30) for writer in ("0a", "0b"))
    frame = frames.encode(Kind.STEPS, {"writer": "0a" * 16, "seq": 0}, [bytes(1 << 19)])
    for spool in (ended, living):
        spool.append(frame, 0)
    ended.close(delivered=False)
    check = checked(directory)["spool"]
    assert check.state == "warn" and "gradwatch sync" in check.advice
    assert check.text == "the spool of 1 ended run with 512.1 kB to be delivered, 1 of running trainings with 512.1 kB"
    assert checked(directory)["spool"] == check  # nothing stays locked
    living.close(delivered=True)
    assert not living.folder.exists() and ended.folder.exists()
