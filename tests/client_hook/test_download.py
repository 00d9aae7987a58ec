"""A download is whole or not there, whatever comes between."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from gradwatch.download import save, write
from gradwatch.fetch import ClientError, Fetcher

from tests.client_hook.answering import answering

BODY = bytes(range(256)) * 5000


def quiet(size: int, expected: int) -> None:
    return None


def test_a_file_comes_whole_and_its_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    length: dict[str, Any] = {"Content_Length": str(len(BODY)), "Gradwatch_Estimated_Bytes": "1000000"}
    with answering(body=BODY, **length) as server:
        fetcher = Fetcher(server.url, None, 5)
        path = tmp_path / "run.csv"
        size = save(fetcher, "x", path, "csv", force=False, tell=lambda *now: told.append(now), match="a*")
    assert size == len(BODY) and path.read_bytes() == BODY and [*tmp_path.iterdir()] == [path]
    assert told[0] == (0, 1_000_000) and told[-1] == (len(BODY), 1_000_000)
    assert [now for now, _ in told] == sorted(now for now, _ in told)


def test_nothing_is_replaced_without_force(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("mine")
    with answering(body=b"new", Content_Length="3") as server:
        fetcher = Fetcher(server.url, None, 5)
        with pytest.raises(ClientError, match=r"run\.csv is there already"):
            save(fetcher, "x", path, "csv", force=False, tell=quiet)
        assert path.read_text() == "mine" and server.asked == []
        save(fetcher, "x", path, "csv", force=True, tell=quiet)
    assert path.read_text() == "new"


def test_a_file_that_comes_to_be_there_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"

    def meanwhile(size: int, expected: int) -> None:
        path.write_text("mine")

    with (
        answering(body=b"new", Content_Length="3") as server,
        pytest.raises(ClientError, match="has come to be there meanwhile"),
    ):
        save(Fetcher(server.url, None, 5), "x", path, "csv", force=False, tell=meanwhile)
    assert path.read_text() == "mine" and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ClientError])
def test_what_breaks_off_leaves_the_old_file_and_no_other(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("mine")

    def stop(size: int, expected: int) -> None:
        if size and error is KeyboardInterrupt:
            raise KeyboardInterrupt

    with answering(body=b"half", Content_Length="9") as server, pytest.raises(error):
        save(Fetcher(server.url, None, 5), "x", path, "csv", force=True, tell=stop)
    assert path.read_text() == "mine" and [*tmp_path.iterdir()] == [path]


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    with answering(body=b"new", Content_Length="3") as server:
        fetcher = Fetcher(server.url, None, 5)
        with pytest.raises(ClientError, match="cannot be written: No such file or directory"):
            save(fetcher, "x", tmp_path / "none" / "run.csv", "csv", force=False, tell=quiet)
        (tmp_path / "folder").mkdir()
        with pytest.raises(ClientError, match="cannot be written: Is a directory"):
            save(fetcher, "x", tmp_path / "folder", "csv", force=True, tell=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with (
        answering(body=BODY, Content_Length=str(len(BODY))) as server,
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OSError, match="No space left"),
    ):
        write(Fetcher(server.url, None, 5), "x", full, "csv", tell=quiet)


def test_an_open_file_is_written_to(tmp_path: Path) -> None:
    file = io.BytesIO()
    with answering(body=BODY, Content_Length=str(len(BODY))) as server:
        assert write(Fetcher(server.url, None, 5), "x", file, "csv", tell=quiet) == len(BODY)
    assert file.getvalue() == BODY
