"""Requests to those who answer wrongly, elsewhere, half or not at all."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from gradwatch import __version__
from gradwatch.fetch import ClientError, Fetcher

from tests.client_hook.answering import answering


def test_a_request_says_who_asks_and_for_what() -> None:
    with answering(body=b'{"a": 1}', Content_Length="8") as server:
        fetcher = Fetcher(server.url, "secret", 5)
        assert fetcher.json("api/x", a=None, b=["c", "d&e"], f=0) == {"a": 1}
    (asked,) = server.asked
    assert asked["authorization"] == "Bearer secret" and asked["accept"] == "application/json"
    assert asked["user-agent"] == f"gradwatch/{__version__}"


def test_a_redirect_is_told_and_not_followed_with_the_token() -> None:
    with (
        answering() as other,
        answering(302, Location=other.url) as server,
        pytest.raises(ClientError, match=f"redirects to {other.url}: use that address"),
    ):
        Fetcher(server.url, "secret", 5).json("api/runs")
    assert other.asked == []


@pytest.mark.parametrize("body", [b"<html>", b'{"a": ', b'{"a": 1, "tail":'])
def test_what_is_no_gradwatch_server_is_called_so(body: bytes) -> None:
    with answering(body=body) as server, pytest.raises(ClientError, match="is no gradwatch server"):
        Fetcher(server.url, None, 5).json("api/runs")
    with answering(500, body) as server, pytest.raises(ClientError, match=r"status 500; is it a gradwatch server"):
        Fetcher(server.url, None, 5).json("api/runs")


def test_the_servers_own_sentence_is_passed_on() -> None:
    with (
        answering(403, b'{"detail": "this address is not served"}') as server,
        pytest.raises(ClientError, match="answered: this address is not served") as raised,
    ):
        Fetcher(server.url, None, 5).json("api/runs")
    assert raised.value.status == 403


def test_a_server_that_knows_no_frames_is_older() -> None:
    with (
        answering(body=b"{}", Content_Type="application/json") as server,
        pytest.raises(ClientError, match="older than this client"),
    ):
        Fetcher(server.url, None, 5).frames("api/runs/x/series", columns=0)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content_Length": "9"}, b"half"),
        ({"Transfer_Encoding": "chunked"}, b"9\r\nhalf"),
        ({"Transfer_Encoding": "chunked"}, b"4\r\nhalf\r\n"),
    ],
    ids=["length", "chunk", "no last chunk"],
)
def test_half_an_answer_is_no_answer(headers: dict[str, Any], body: bytes) -> None:
    with (
        answering(body=body, **headers) as server,
        Fetcher(server.url, None, 5).open("x", "*/*") as answer,
        pytest.raises(ClientError, match="broke off after 4 bytes"),
    ):
        list(answer.parts())


def test_a_silent_server_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begun = time.monotonic()
        with pytest.raises(ClientError, match="cannot be reached: timed out"):
            Fetcher(f"http://127.0.0.1:{mute.getsockname()[1]}", None, 0.3).json("api/runs")
        assert time.monotonic() - begun < 3


def test_no_proxy_stands_before_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(body=b"{}") as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert Fetcher(server.url, None, 5).json("x") == {}
