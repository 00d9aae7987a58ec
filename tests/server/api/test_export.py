"""Exports read back by others: by pyarrow, polars and the csv module."""

from __future__ import annotations

import csv
import io
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars
import psutil
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from tests.processes import ServerProcess

from ..served import Served
from ..stream import MISSING, Socket, Writer

ODD = np.array([1.0, np.nan, np.inf, -np.inf, -0.0, 5e-324, MISSING, 0.1])


def file_of(server: Served | ServerProcess, run: str, query: str = "") -> parquet.ParquetFile:
    answer = httpx.get(f"{server.url}/api/runs/{run}/export?format=parquet{query}", timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"].endswith('.parquet"')
    return parquet.ParquetFile(pa.BufferReader(answer.content))


def table_of(server: Served | ServerProcess, run: str, query: str = "") -> pa.Table:
    return file_of(server, run, query).read()


def bits(column: pa.ChunkedArray, kind: str) -> tuple[bytes, list[bool]]:
    """The values' bytes, 0 where they are null; and where that is."""
    array = column.combine_chunks()
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values, kind).tobytes(), array.is_null().to_pylist()


def odd_norms(rows: int, layers: int, seed: int) -> NDArray[np.float32]:
    """Any float32 that arithmetic gives: NaNs of all payloads but signalling ones, subnormals; and the odd few."""
    values = np.random.default_rng(seed).integers(0, 2**32, (rows, layers), np.uint32).view(np.float32)
    quiet = np.where(np.isnan(values), values.view(np.uint32) | 1 << 22, values.view(np.uint32)).astype(np.uint32)
    quiet[: len(ODD), 0] = ODD.astype(np.float32).view(np.uint32)
    return quiet.view(np.float32)


def test_parquet_holds_every_bit(server: Served) -> None:
    seed = int(np.random.default_rng().integers(2**32))
    sys.stdout.write(f"seed {seed}\n")
    norms = odd_norms(300, 3, seed)
    absent = np.random.default_rng(seed).random((300, 3)) < 0.1
    loss = np.resize(ODD, 300)
    writer = Writer(["a.weight", "a.bias", "b"], project="exported", run="bits", tags=["x"])
    with server.ingest() as socket:
        socket.store(writer, writer.opening())
        for first in range(0, 300, 50):
            part = slice(first, first + 50)
            socket.store(writer, writer.steps(np.arange(300)[part], norms[part], absent[part], loss=loss[part]))
        socket.store(writer, writer.scalars([("accuracy", 3, 0.5), ("accuracy", 1000, np.inf)]))
    table = table_of(server, writer.run)
    assert table.column("step").to_pylist() == [*range(300), 1000]
    assert set(table.column("attempt").to_pylist()) == {1} and set(table.column("rank").to_pylist()) == {0}
    assert table.column("time").to_pylist() == [*(1e9 + np.arange(300.0)), None]
    is_missing = [*(loss.view(np.uint64) == MISSING.view(np.uint64)).tolist(), True]
    wanted = np.where(is_missing, 0.0, [*loss, 0.0])
    assert bits(table.column("loss"), "<f8") == (wanted.tobytes(), is_missing)
    assert table.column("accuracy").to_pylist() == [None] * 3 + [0.5] + [None] * 296 + [np.inf]
    for at, name in enumerate(writer.layers):
        column = table.column(f"grad_norm/{name}")
        assert column.type == pa.float32()
        wanted32 = np.append(np.where(absent[:, at], np.float32(0), norms[:, at]), np.float32(0))
        assert bits(column, "<f4") == (wanted32.tobytes(), [*absent[:, at].tolist(), True])


def test_parquet_says_what_it_holds(server: Served) -> None:
    writer = Writer(["a.weight", "b"], project="exported", run="about", name="the run", tags=["x"])
    with server.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps([0]))
    schema = table_of(server, writer.run).schema
    said = json.loads(schema.metadata[b"gradwatch"])
    assert said["run"]["name"] == "the run" and said["run"]["id"] == writer.run and said["run"]["tags"] == ["x"]
    layer = {"column": "grad_norm/a.weight", "name": "a.weight", "shape": [2, 3], "numel": 6, "order": 0}
    assert said["layers"][0] == layer
    lines = httpx.get(f"{server.url}/api/runs/{writer.run}/export?format=csv").text.splitlines()
    assert schema.names == next(csv.reader(lines[:1]))


def test_polars_reads_it(server: Served, tmp_path: Path) -> None:
    writer = Writer(["a"], project="exported", run="polars")
    with server.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps(np.arange(4), np.array([[1], [np.nan], [np.inf], [0.1]])))
    (tmp_path / "run.parquet").write_bytes(
        httpx.get(f"{server.url}/api/runs/{writer.run}/export?format=parquet").content
    )
    column = polars.read_parquet(tmp_path / "run.parquet")["grad_norm/a"]
    assert column.dtype == polars.Float32 and str(column.to_list()) == str(
        [1.0, np.nan, np.inf, float(np.float32(0.1))]
    )


def test_norms_in_float64_stay_so(server: Served) -> None:
    writer = Writer(["a"], project="exported", run="double")
    with server.ingest() as socket:
        opening = writer.hello() + writer.layer_table(float_type="f8")
        socket.store(writer, opening + writer.steps([0, 1], [[0.1], [5e-324]]))
    column = table_of(server, writer.run).column("grad_norm/a")
    assert column.type == pa.float64() and column.to_pylist() == [0.1, 5e-324]
    lines = httpx.get(f"{server.url}/api/runs/{writer.run}/export?format=csv").text.splitlines()
    assert lines[1].endswith(",0.1") and lines[2].endswith(",5e-324")


def test_ranges_attempts_and_layers_are_chosen(server: Served) -> None:
    first = Writer(["a.weight", "a.bias", "b"], project="exported", run="chosen")
    again = Writer(["a.weight", "new"], project="exported", run="chosen", start_step=6)
    with server.ingest() as socket:
        socket.store(first, first.opening() + first.steps(np.arange(10), 1.0))
        socket.store(again, again.opening() + again.steps(np.arange(6, 9), 2.0))
    table = table_of(server, first.run)
    assert table.column("step").to_pylist() == list(range(9))
    assert table.column("attempt").to_pylist() == [1] * 6 + [2] * 3
    assert table.column("grad_norm/a.weight").to_pylist() == [1.0] * 6 + [2.0] * 3
    assert table.column("grad_norm/b").to_pylist() == [1.0] * 6 + [None] * 3
    assert table.column("grad_norm/new").to_pylist() == [None] * 6 + [2.0] * 3
    part = table_of(server, first.run, "&match=a.*&first=2&last=7")
    assert part.column("step").to_pylist() == list(range(2, 8))
    assert part.schema.names[-2:] == ["grad_norm/a.weight", "grad_norm/a.bias"]
    assert table_of(server, first.run, "&attempt=1").column("step").to_pylist() == list(range(10))
    assert not [n for n in table_of(server, first.run, "&match=nothing").schema.names if n.startswith("grad_norm/")]


def test_columns_of_the_same_name_are_told_apart(server: Served) -> None:
    writer = Writer(["a"], project="exported", run="names")
    with server.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps([0]))
        socket.store(writer, writer.scalars([("step", 0, 7.0), ("grad_norm/a", 0, 8.0)]))
    table = table_of(server, writer.run)
    assert table.column("step").to_pylist() == [0] and table.column("step (2)").to_pylist() == [7.0]
    assert table.column("grad_norm/a").to_pylist() == [8.0] and table.column("grad_norm/a (2)").to_pylist() == [1.0]


def test_a_run_without_a_step_is_an_empty_file(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.hello())
    assert table_of(server, writer.run).num_rows == 0


def test_csv_gives_back_every_number(server: Served) -> None:
    norms = np.array([[0.1, np.nan], [np.inf, -np.inf], [-0.0, 1e-45]], np.float32)
    writer = Writer(["=a", "b"], project="exported", run="csv")
    with server.ingest() as socket:
        absent = np.array([[False, False], [False, False], [False, True]])
        socket.store(writer, writer.opening() + writer.steps(np.arange(3), norms, absent, loss=ODD[4:7]))
    text = httpx.get(f"{server.url}/api/runs/{writer.run}/export").text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["loss"] for row in rows] == ["-0.0", "5e-324", ""]
    assert [row["grad_norm/b"] for row in rows] == ["nan", "-inf", ""]
    found = np.array([float(row["grad_norm/=a"]) for row in rows])
    assert found.astype(np.float32).tobytes() == norms[:, 0].tobytes() and (found == norms[:, 0]).all()


def test_many_exports_at_once_each_end(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps(np.arange(2000)))
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda _: table_of(server, writer.run), range(8)))
    assert all(table.num_rows == 2000 for table in tables)


def test_the_run_goes_on_and_the_export_ends_where_it_was(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening())
        for first in range(0, 3000, 500):
            socket.store(writer, writer.steps(np.arange(first, first + 500), float(first)))
        goes_on = threading.Event()

        def train() -> None:
            step = 3000
            while not goes_on.is_set() and step < 60_000:
                socket.store(writer, writer.steps(np.arange(step, step + 100), -1.0))
                step += 100

        thread = threading.Thread(target=train)
        thread.start()
        try:
            for _ in range(4):
                table = table_of(server, writer.run)
                steps = table.column("step").to_numpy()
                assert len(steps) >= 3000 and (steps == np.arange(len(steps))).all()
                expected = np.where(steps < 3000, steps // 500 * 500.0, -1.0).astype(np.float32)
                assert (table.column("grad_norm/a.weight").to_numpy() == expected).all()
        finally:
            goes_on.set()
            thread.join()


def test_a_run_deleted_meanwhile_leaves_no_file_that_looks_whole(tmp_path: Path) -> None:
    with Served(tmp_path) as server:
        writer = Writer([f"layer.{n}" for n in range(500)], project="exported", run="deleted")
        with server.ingest() as socket:
            socket.store(writer, writer.opening())
            for first in range(0, 20_000, 100):
                socket.store(writer, writer.steps(np.arange(first, first + 100), np.random.rand(100, 500)))
        path = f"{server.url}/api/runs/{writer.run}"
        with (
            pytest.raises(httpx.RemoteProtocolError),
            httpx.stream("GET", f"{path}/export?format=parquet", timeout=60) as answer,
        ):
            parts = answer.iter_bytes(1 << 16)
            next(parts)
            assert httpx.delete(path).status_code == 204
            for _ in parts:
                pass


@pytest.mark.timeout(120)
def test_a_long_run_takes_no_more_memory_than_a_quarter_of_it(tmp_path: Path) -> None:
    """1,000 layers x 40,000 steps: 160 MB of norms."""
    layers, steps = 1000, 40_000
    norms = np.exp(np.random.default_rng(1).normal(size=(200, layers)))
    with ServerProcess(tmp_path) as server:
        writer = Writer([f"layer.{n}" for n in range(layers)], project="exported", run="long")
        with Socket(server.url, "/api/ingest") as socket:
            socket.store(writer, writer.opening())
            for first in range(0, steps, 200):
                socket.store(writer, writer.steps(np.arange(first, first + 200), norms * (1 + first / 1e6)))
        path = f"{server.url}/api/runs/{writer.run}/export?format=parquet"
        process = psutil.Process(server.popen.pid)
        quarter = max(peak_of(process, f"{path}&last={steps // 4 - 1}")[1] for _ in range(3))
        size, whole = peak_of(process, path)
        estimate = estimated(path)
    sys.stdout.write(f"{size / 1e6:.0f} MB, {(whole - quarter) / 1e6:.0f} MB more memory\n")
    assert size > 80e6 and 0.5 < size / estimate < 2
    assert whole - quarter < 80e6


def peak_of(process: psutil.Process, path: str) -> tuple[int, int]:
    """The length of an export, and the most memory the server had meanwhile, in bytes."""
    size = most = 0
    with httpx.stream("GET", path, timeout=60) as answer:
        for part in answer.iter_bytes(1 << 20):
            size += len(part)
            most = max(most, process.memory_info().rss)
    return size, most


def estimated(path: str) -> int:
    with httpx.stream("GET", path, timeout=60) as answer:
        return int(answer.headers["gradwatch-estimated-bytes"])


def test_parquet_without_pyarrow_says_what_to_install(server: Served, writer: Writer, monkeypatch: Any) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps([0]))
    monkeypatch.setattr("gradwatch_server.api.export.find_spec", lambda name: None)
    answer = httpx.get(f"{server.url}/api/runs/{writer.run}/export?format=parquet")
    assert answer.status_code == 501 and "pip install 'gradwatch[export]'" in answer.json()["detail"]
    assert httpx.get(f"{server.url}/api/runs/{writer.run}/export?format=csv").status_code == 200
