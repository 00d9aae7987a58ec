"""Host, Origin and token on every kind of route."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from gradwatch_server.auth import POLICY, Sessions
from starlette.routing import WebSocketRoute
from websockets.exceptions import InvalidStatus

from .served import Served
from .stream import Socket, Writer

TOKEN = "correct horse battery staple"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a token."""
    with Served(tmp_path_factory.mktemp("guarded"), token=TOKEN, allowed_hosts="gw.example, 10.1.2.3") as served:
        yield served


def status(served: Served, path: str, method: str = "GET", **headers: str) -> int:
    """The status of an answer; of a websocket's handshake for paths that are one."""
    if path in ("/api/ingest", "/api/live"):
        host = {"host": headers.pop("host")} if "host" in headers else {}
        try:
            with Socket(served.url, path, additional_headers=headers | host):
                return 101
        except InvalidStatus as error:
            return error.response.status_code
    return httpx.request(method, served.url + path, headers=headers).status_code


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("LOCALHOST:99", True),
        ("127.0.0.1:7531", True),
        ("127.8.8.8", True),
        ("[::1]:7531", True),
        ("[::1]", True),
        ("localhost.", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.1", False),
        ("[::2]", False),
        ("evil@localhost", False),
        ("localhost:80@evil", False),
        ("localhost:evil", False),
        ("", False),
        ("gw.example", False),
    ],
)
def test_hosts_that_are_not_ours_are_refused(server: Served, host: str, allowed: bool) -> None:
    assert (status(server, "/healthz", host=host) == 200) is allowed
    assert (status(server, "/api/runs", host=host) == 200) is allowed


def test_configured_hosts_are_allowed(guarded: Served) -> None:
    for origin, wanted in (("https://gw.example", 200), ("http://gw.example:99", 403), ("http://127.0.0.1", 403)):
        assert status(guarded, "/healthz", origin=origin) == wanted
    for host in ("gw.example", "GW.example:8443", "10.1.2.3"):
        assert status(guarded, "/healthz", host=host) == 200


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://{own}", True),
        ("https://{own}", True),
        ("http://evil.example", False),
        ("null", False),
        ("http://127.0.0.1:1", False),
        ("http://localhost:{port}", False),
        ("http://{own}.evil.example", False),
        ("http://evil.example@{own}", False),
        ("http://{own}@evil.example", False),
        ("file://{own}", False),
        ("http://127.0.0.1:99999", False),
    ],
)
@pytest.mark.parametrize("path", ["/api/runs", "/api/live", "/api/ingest"])
def test_other_origins_are_refused_on_http_and_websockets(
    server: Served, path: str, origin: str, allowed: bool
) -> None:
    own = server.url.removeprefix("http://")
    told = origin.format(own=own, port=own.partition(":")[2])
    assert (status(server, path, Origin=told) in (101, 200)) is allowed


def test_requests_that_change_something_must_not_come_from_another_site(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.hello())
    path = f"/api/runs/{writer.run}"
    for site in ("cross-site", "same-site"):
        assert status(server, path, "DELETE", **{"sec-fetch-site": site}) == 403
    for method in ("DELETE", "PATCH"):
        assert status(server, path, method, origin="http://evil.example") == 403
    assert server.get(path)["name"] == "a run"


def test_the_policy_stands_on_every_answer(server: Served, guarded: Served) -> None:
    for answer in (
        httpx.get(server.url + "/api/runs"),
        httpx.get(server.url + "/nothing"),
        httpx.get(server.url + "/healthz", headers={"host": "evil.example"}),
        httpx.get(guarded.url + "/api/runs"),
    ):
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"


# Every route and what it says without a token. A new route has to be entered here.
WITHOUT_TOKEN = {
    "/healthz": 200,
    "/login": 200,
    "/": 303,
    "/static/plotly.min.js": 200,
    "/static/{path}": 404,
    "/api/openapi.json": 401,
    "/api/runs": 401,
    "/api/runs/{run}": 401,
    "/api/runs/{run}/series": 401,
    "/api/runs/{run}/layers": 401,
    "/api/runs/{run}/histograms": 401,
    "/api/runs/{run}/landscape": 401,
    "/api/runs/{run}/events": 401,
    "/api/runs/{run}/export": 401,
    "/api/runs/{run}/control": 401,
    "/api/alerts": 401,
    "/api/alerts/{alert}/ack": 401,
    "/api/ingest": 401,
    "/api/live": 401,
}


def _routes(app: FastAPI) -> set[str]:
    sockets = {route.path for route in app.routes if isinstance(route, WebSocketRoute)}
    return {*app.openapi()["paths"], *sockets, str(app.openapi_url)}


def test_every_route_without_a_token(guarded: Served) -> None:
    assert _routes(guarded.app) == set(WITHOUT_TOKEN)
    for path, wanted in WITHOUT_TOKEN.items():
        real = path.replace("{run}", "x").replace("{alert}", "1").replace("{path}", "none.js")
        assert status(guarded, real) == wanted, path
        assert status(guarded, real, authorization="Bearer wrong") == wanted, path


def test_the_token_as_a_header_opens_http_and_websockets(guarded: Served) -> None:
    for path, wanted in (("/api/runs", 200), ("/api/ingest", 101), ("/api/live", 101)):
        assert status(guarded, path, authorization=f"Bearer {TOKEN}") == wanted
        assert status(guarded, f"{path}?token={TOKEN}") == 401
        assert status(guarded, path, authorization=f"Basic {TOKEN}") == 401


def test_the_login_gives_a_cookie_that_is_not_the_token(guarded: Served) -> None:
    with httpx.Client(base_url=guarded.url) as client:
        assert "<form" in client.get("/login").text
        assert client.post("/login", data={"token": "wrong"}).status_code == 401
        assert client.get("/api/runs").status_code == 401
        answer = client.post("/login", data={"token": TOKEN})
        assert (answer.status_code, answer.headers["location"]) == (303, "./")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie.replace("Strict", "strict") and TOKEN not in cookie
        assert client.get("/api/runs").status_code == 200
        name, value = next(iter(client.cookies.items()))
        assert status(guarded, "/api/live", cookie=f"{name}={value}") == 101
        assert status(guarded, "/api/live", cookie=f"{name}={value[:-1]}x") == 401
        assert status(guarded, "/api/live", cookie=f"{name}=") == 401
        assert status(guarded, "/api/live", cookie="a b c;;=") == 401
        assert client.post("/login", content=b"x" * 10_000).status_code == 413


def test_sessions_end_and_depend_on_the_token() -> None:
    sessions = Sessions(TOKEN)
    made = sessions.make(1000.0)
    assert sessions.is_valid(made, 1001.0)
    assert not sessions.is_valid(made, 1e10)
    assert not Sessions("another token of any length").is_valid(made, 1001.0)
    for forged in ("", ".", "..", "9999999999.x.", "é.é.é", "1e99.a.b"):
        assert not sessions.is_valid(forged, 1.0)
    assert not Sessions(None).token_is("")
