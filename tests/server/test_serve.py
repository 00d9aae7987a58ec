"""``gradwatch serve`` as a process."""

from __future__ import annotations

import hmac
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from gradwatch_server import serve
from gradwatch_server.cli import main
from gradwatch_server.serve import address, file_system_of
from gradwatch_server.settings import DEFAULT_PORT, Settings

from .stream import Socket


@contextmanager
def serving(folder: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command, running; its folder is GRADWATCH_DIR."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GRADWATCH_", "SSH_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "gradwatch_server", "serve", *arguments],
        env=clean | {"GRADWATCH_DIR": str(folder)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def announced(folder: Path, process: subprocess.Popen[str]) -> dict[str, str]:
    """server.json, when it is there."""
    end = time.monotonic() + 30
    while not (folder / "server.json").exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.02)
    found: dict[str, str] = json.loads((folder / "server.json").read_text())
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def test_a_server_announces_itself_keeps_others_off_and_ends_cleanly(tmp_path: Path) -> None:
    (tmp_path / "spool" / "leftover").mkdir(parents=True)
    with serving(tmp_path, "--port", "0", SSH_CONNECTION="1 2 3 4") as process:
        said = announced(tmp_path, process)
        assert stat.S_IMODE((tmp_path / "server.json").stat().st_mode) == 0o600
        assert str(said["pid"]) == str(process.pid)
        answer = httpx.get(said["url"] + "/healthz?challenge=ab").json()
        assert answer["instance"] == said["instance"]
        assert answer["proof"] == hmac.new(said["secret"].encode(), b"ab", "sha256").hexdigest()
        with serving(tmp_path, "--port", "0") as second:
            output, _ = second.communicate(timeout=30)
            assert second.returncode == 1 and "another gradwatch already serves" in output
            assert output.count("\n") == 1
        assert json.loads((tmp_path / "server.json").read_text()) == said
        with Socket(said["url"], "/api/live"), Socket(said["url"], "/api/ingest"):
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=30)
        port = said["url"].rpartition(":")[2]
        assert process.returncode == 0 and "Traceback" not in output
        assert said["url"] in output and f"ssh -L {port}:127.0.0.1:{port}" in output
        assert not (tmp_path / "server.json").exists()


def test_sigterm_ends_it_cleanly_and_a_strangers_server_json_stays(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0") as process:
        announced(tmp_path, process)
        (tmp_path / "server.json").write_text('{"instance": "another"}')
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0 and "Traceback" not in output
        assert (tmp_path / "server.json").exists()


def test_a_port_that_was_asked_for_and_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with serving(tmp_path, "--port", port) as process:
            output, _ = process.communicate(timeout=30)
    assert process.returncode == 1 and f"port {port}" in output and output.count("\n") == 1
    assert not (tmp_path / "server.json").exists()


def test_the_next_free_port_is_taken_where_none_was_asked_for(tmp_path: Path) -> None:
    with ExitStack() as stack:
        with suppress(OSError):  # then somebody else has it, which is as good
            stack.enter_context(socket.create_server(("127.0.0.1", DEFAULT_PORT)))
        with serve.listening(Settings(dir=tmp_path, port=DEFAULT_PORT), port_is_given=False) as listener:
            port = listener.getsockname()[1]
            assert DEFAULT_PORT < port < DEFAULT_PORT + 20
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == serve.STALLED_MS


def test_other_addresses_need_a_token(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", "--port", "0") as process:
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 1 and "gradwatch token create" in output and output.count("\n") == 1
    token = "a token that is long enough"
    with serving(tmp_path, "--host", "0.0.0.0", "--port", "0", GRADWATCH_TOKEN=token) as process:
        url = announced(tmp_path, process)["url"]
        assert url.startswith("http://127.0.0.1:")
        assert httpx.get(url + "/api/runs").status_code == 401
        assert httpx.get(url + "/api/runs", headers={"authorization": f"Bearer {token}"}).status_code == 200
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert token not in output


def test_a_database_of_the_future_is_one_clear_line(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(tmp_path / "gradwatch.db")) as newer:
        newer.execute("create table alembic_version (version_num varchar(32))")
        newer.execute("insert into alembic_version values ('9999')")
        newer.commit()
    with serving(tmp_path, "--port", "0") as process:
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 1 and "upgrade gradwatch" in output and output.count("\n") == 1


def test_wrong_settings_are_one_clear_line(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["serve"], env={"GRADWATCH_DIR": str(tmp_path), "GRADWATCH_TOKEN": "hunter2"})
    assert found.exit_code == 1 and "GRADWATCH_TOKEN" in found.output and "hunter2" not in found.output
    assert found.output.count("\n") == 1


def test_a_database_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0", "--database", "postgresql://u:sesame@127.0.0.1:9/d") as process:
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 1 and "database" in output and "sesame" not in output
        assert output.count("\n") == 1


def test_a_kind_of_database_that_is_not_known_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(serve.CannotServe, match="only SQLite files and postgresql://"):
        serve.run(Settings(dir=tmp_path, database="mysql://host/name", port=0))


def test_a_fresh_token_every_time() -> None:
    tokens = {CliRunner().invoke(main, ["token", "create"]).stdout.strip() for _ in range(2)}
    assert len(tokens) == 2 and all(len(token) == 43 for token in tokens)


def test_addresses_for_the_browser() -> None:
    assert address("0.0.0.0", 1) == address("::", 1) == "http://127.0.0.1:1"
    assert address("::1", 1) == "http://[::1]:1"
    assert address("gpu7", 1) == "http://gpu7:1"


def test_the_file_system_of_a_folder_is_that_of_the_deepest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n/dev/b {tmp_path}/local ext4 rw 0 0\n")
    (tmp_path / "local").mkdir()
    assert file_system_of(tmp_path / "home", mounts) == "nfs4"
    assert file_system_of(tmp_path / "local", mounts) == "ext4"
    assert file_system_of(Path("/usr"), mounts) == "ext4"
    assert file_system_of(tmp_path, tmp_path / "none") == ""
