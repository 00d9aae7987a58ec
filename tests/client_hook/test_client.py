"""The client against real servers."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradwatch import Client, ClientError
from gradwatch.client import run_of

from tests.client_hook.reading import send_small_run
from tests.processes import ServerProcess, clean_environment
from tests.server.stream import Writer

TOKEN = "a token that is long enough"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("read")) as process:
        yield process


@pytest.fixture(scope="module")
def small(server: ServerProcess) -> Writer:
    return send_small_run(server.url, project="vision")


def test_runs_are_listed_filtered_and_paged(
    server: ServerProcess, small: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        send_small_run(server.url, project="many", run=f"many {number}", name=f"many {number}", started_at=number)
    client = Client(server.url)
    assert [run.name for run in client.runs("many")] == [f"many {n}" for n in (4, 3, 2, 1, 0)]
    monkeypatch.setattr("gradwatch.client._PAGE", 2)
    assert [run.name for run in client.runs("many")] == [f"many {n}" for n in (4, 3, 2, 1, 0)]
    assert [run.name for run in client.runs("many", limit=3)] == ["many 4", "many 3", "many 2"]
    assert client.runs("many", state="finished") == [] and client.runs(search="many 3")[0].name == "many 3"
    assert client.runs("many").to_pandas()["name"].tolist()[0] == "many 4"
    assert client.runs("many").to_polars().shape[0] == 5 and "fetcher" not in client.runs("many").to_polars().columns


def test_a_run_is_found_by_id_name_and_address(server: ServerProcess, small: Writer) -> None:
    client = Client(server.url + "/")
    run = client.run(small.run)
    addresses = [f"{server.url}/#/run/{small.run}?first=1&last=2", f"{server.url}/api/runs/{small.run}/series"]
    for said in ("small", *addresses):
        assert client.run(said) == run
    assert (run.name, run.project, run.state, run.last_step) == ("small", "vision", "running", 7)
    assert run.config == {"lr": 0.1} and run.layer_names == ["encoder.weight", "encoder.bias", "step"]


def test_what_is_not_there_is_said_with_what_is(server: ServerProcess, small: Writer) -> None:
    client = Client(server.url)
    with pytest.raises(ClientError, match="no run 'smal'; did you mean 'small'") as raised:
        client.run("smal")
    assert raised.value.status == 404
    with pytest.raises(ClientError, match=r"no run 'zzz\?/%'; it has \d+ run"):
        client.run("zzz?/%")
    with pytest.raises(ClientError, match="no address of a run"):
        client.run(server.url)
    with pytest.raises(ClientError, match="there is no such"):
        client.get("api/runs/nope")


def test_a_name_that_several_have_is_not_guessed(server: ServerProcess) -> None:
    twins = [send_small_run(server.url, project="twins", run=f"twin {n}", name="twin") for n in range(2)]
    with pytest.raises(ClientError, match="2 runs are called 'twin'") as raised:
        Client(server.url).run("twin")
    assert all(twin.run in str(raised.value) for twin in twins)


def test_a_wrong_token_and_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ServerProcess(tmp_path, GRADWATCH_TOKEN=TOKEN) as server:
        monkeypatch.setenv("GRADWATCH_DIR", str(tmp_path))
        assert Client(token=TOKEN).url == server.url and Client(token=TOKEN).runs() == []
        with pytest.raises(ClientError, match="wants its token: pass token=, or set GRADWATCH_TOKEN") as raised:
            Client(server.url).runs()
        assert raised.value.status == 401
        monkeypatch.setenv("GRADWATCH_TOKEN", "another token than that one")
        with pytest.raises(ClientError, match="does not take this token") as raised:
            Client(server.url).runs()
        assert "another" not in str(raised.value)
        monkeypatch.setenv("GRADWATCH_TOKEN", TOKEN)
        assert Client(server.url).runs() == []


def test_no_server_and_a_wrong_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWATCH_DIR", str(tmp_path))
    monkeypatch.delenv("GRADWATCH_SERVER", raising=False)
    with pytest.raises(ClientError, match="no server found: start one with `gradwatch serve`"):
        Client()
    with pytest.raises(ClientError, match="must be an address like"):
        Client("localhost:7531")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ClientError, match=f"127.0.0.1:{port} cannot be reached: .*refused.*gradwatch serve"):
        Client(f"http://127.0.0.1:{port}").runs()


def test_reading_loads_no_torch_and_no_server(tmp_path: Path) -> None:
    code = "import sys, gradwatch; gradwatch.Client; print(sorted({'torch', 'fastapi', 'pandas'} & set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("said", "run"),
    [
        ("baseline", "baseline"),
        ("http://h:1/#/run/ab12?span=5", "ab12"),
        ("https://h/prefix/#/run/a%20b", "a b"),
        ("http://h:1/prefix/api/runs/ab12/series?names=loss", "ab12"),
    ],
)
def test_addresses_name_runs(said: str, run: str) -> None:
    assert run_of(said) == run
