"""``gradwatch doctor`` as it is called: lines with advice, JSON, and an exit status that scripts can use."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from gradwatch import doctor as doctor_module
from gradwatch.cli import main
from gradwatch.doctor import examine

from tests.processes import ServerProcess, clean_environment

NO_TORCH = "import sys; sys.modules['torch'] = None\nfrom gradwatch.cli import main\nmain()"


def run(directory: Path, *arguments: str, code: str | None = None, **said: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-c", code] if code else ["-m", "gradwatch.cli"]), "doctor", *arguments]
    environment = clean_environment(directory, **said)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)


def states(output: str) -> dict[str, str]:
    """The state of each check, by name; the last of several."""
    return {line.split()[1]: line.split()[0] for line in output.splitlines()}


def test_a_healthy_setup_is_all_ok_also_without_torch(tmp_path: Path) -> None:
    directory = tmp_path / "gradwatch"
    directory.mkdir(mode=0o700)
    with ServerProcess(directory):
        done = run(directory, code=NO_TORCH)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    found = states(done.stdout)
    assert found.pop("torch") == "warn" and "pip install 'gradwatch[torch]'" in done.stdout
    assert set(found.values()) == {"ok"} and set(found) == {
        "python", "gradwatch", "settings", "directory", "disk", "spool", "server", "clock", "token", "websocket",
    }  # fmt: skip


def test_failures_end_with_status_one_and_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "gradwatch").write_text("a file in the directory's place")
    done = run(tmp_path / "gradwatch", GRADWATCH_TOKN="misspelt")
    assert done.returncode == 1 and done.stderr == "", done.stderr
    found = states(done.stdout)
    assert found["directory"] == "fail" and found["settings"] == found["server"] == "warn"
    assert "-> set GRADWATCH_DIR to a folder" in done.stdout and "-> is GRADWATCH_TOKEN meant?" in done.stdout


def test_json_says_the_same(tmp_path: Path) -> None:
    done = run(tmp_path, "--json", "--server", "host:1")
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 1 and said["state"] == "fail"
    assert {"name", "state", "text", "advice"} == set(said["checks"][0])
    (wrong,) = [check for check in said["checks"] if check["state"] == "fail"]
    assert wrong["name"] == "settings" and "http://host:7531" in wrong["text"]


def test_warnings_alone_end_with_status_zero(own_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert any(line.startswith("warn settings   GRADWATCH_MODE is offline") for line in lines)
    assert "server" not in states("\n".join(lines))  # offline: there is nothing to be asked


def test_a_check_that_breaks_is_told_and_the_others_run(monkeypatch: pytest.MonkeyPatch, own_directory: Path) -> None:
    def broken(settings: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(doctor_module, "check_storage", broken)
    monkeypatch.setenv("GRADWATCH_MODE", "online")
    found = {check.name: check.state for check in examine()}
    assert found["directory"] == "fail" and found["server"] == "warn" and found["python"] == "ok"


def test_it_is_over_soon_whatever_the_network_does(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examine()  # torch is loaded by now
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    begun = time.monotonic()
    found = examine("http://192.0.2.1:7531")  # an address that belongs to nobody
    assert time.monotonic() - begun < 10 and found[-1].state == "fail"
