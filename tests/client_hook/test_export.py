"""``gradwatch export`` as it is called."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.client_hook.reading import ABSENT, LAYERS, NORMS, send_long_run, send_small_run
from tests.processes import ServerProcess, clean_environment

NO_TORCH = "import sys; sys.modules['torch'] = None\nfrom gradwatch.cli import main\nmain()"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("exported")) as process:
        yield process


@pytest.fixture(scope="module")
def run(server: ServerProcess) -> str:
    return send_small_run(server.url, name="my run/1").run


def export(server: ServerProcess, folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The command, called in ``folder`` without torch; it finds the server by its GRADWATCH_DIR."""
    command = [sys.executable, "-c", NO_TORCH, "export", *arguments]
    environment = clean_environment(server._log.parent)
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, timeout=60)


def test_parquet_has_every_bit_of_what_was_sent(server: ServerProcess, run: str, tmp_path: Path) -> None:
    ended = export(server, tmp_path, "my run/1")
    assert ended.returncode == 0, ended.stderr
    (file,) = tmp_path.iterdir()
    assert file.name == f"my-run-1-{run}.parquet" and f"{file.stat().st_size:,} bytes".encode() in ended.stderr
    table = parquet.read_table(file)
    assert json.loads(table.schema.metadata[b"gradwatch"])["run"]["name"] == "my run/1"
    assert table.column("step").to_pylist() == [*range(8), 20]
    for at, name in enumerate(LAYERS):
        column = table.column(f"grad_norm/{name}").slice(0, 4).combine_chunks()
        assert column.is_null().to_pylist() == ABSENT[:, at].tolist()
        wanted = np.where(ABSENT[:, at], np.float32(0), NORMS[:, at])
        assert column.fill_null(0).to_numpy(zero_copy_only=False).tobytes() == wanted.tobytes()


def test_nothing_is_replaced_without_force(server: ServerProcess, run: str, tmp_path: Path) -> None:
    file = tmp_path / "run.csv"
    file.write_text("mine")
    ended = export(server, tmp_path, run, "--output", "run.csv")
    assert ended.returncode == 1 and b"run.csv is there already; --force replaces it" in ended.stderr
    assert file.read_text() == "mine"
    ended = export(server, tmp_path, run, "--output", "run.csv", "--force", "--match", "encoder.*", "--last", "3")
    assert ended.returncode == 0 and file.read_text().count("\n") == 5
    assert file.read_text().splitlines()[0].endswith("accuracy,grad_norm/encoder.weight,grad_norm/encoder.bias")


def test_an_address_from_the_browser_names_run_and_server(server: ServerProcess, run: str, tmp_path: Path) -> None:
    ended = export(server, tmp_path, f"{server.url}/#/run/{run}?first=0&last=3", "--output", "-", "--format", "csv")
    assert ended.returncode == 0 and ended.stdout.count(b"\r\n") == 10 and [*tmp_path.iterdir()] == []


def test_standard_output_takes_parquet(server: ServerProcess, run: str, tmp_path: Path) -> None:
    ended = export(server, tmp_path, run, "--output", "-")
    assert parquet.read_table(pa.BufferReader(ended.stdout)).num_rows == 9 and b"bytes" not in ended.stderr


def test_who_reads_only_the_beginning_sees_no_traceback(server: ServerProcess, tmp_path: Path) -> None:
    run = send_long_run(server.url, 3000, 100).run
    command = [sys.executable, "-c", NO_TORCH, "export", run, "--output", "-", "--format", "csv"]
    process = subprocess.Popen(
        command, env=clean_environment(server._log.parent), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(100).startswith(b"attempt,rank,step,time")
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 1 and b"Traceback" not in errors and b"Error" not in errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nope"], "has no run 'nope'"),
        (["--server", "http://127.0.0.1:9", "nope"], "http://127.0.0.1:9 cannot be reached"),
        (["--server", "host:1", "nope"], "must be an address like"),
        (["--output", "none/run.csv"], "cannot be written: No such file"),
        (["--first", "5", "--last", "4"], "'first' must not be above 'last'"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    server: ServerProcess, run: str, arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    named = [] if "nope" in arguments else [run]
    ended = export(server, tmp_path, *arguments, *named)
    assert ended.returncode == 1 and sentence in ended.stderr.decode() and b"Traceback" not in ended.stderr
    assert [*tmp_path.iterdir()] == []


def test_no_server_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NO_TORCH, "export", "x"]
    ended = subprocess.run(command, env=clean_environment(tmp_path), capture_output=True, timeout=60)
    assert ended.returncode == 1 and b"no server found: start one with `gradwatch serve`" in ended.stderr
