"""The server that a training would stream to: there, itself, of this version, letting us in, and in time."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from gradwatch import __version__
from gradwatch.connection import Connection, ConnectionFailed
from gradwatch.discovery import find_server
from gradwatch.health import Check
from gradwatch.health.environment import LOOPBACK
from gradwatch.health.web import Answer, NoAnswer, get, within
from gradwatch.settings import Settings

SECONDS: Final = 5.0  # all of it together
_EACH: Final = 2.0
_SKEW: Final = 5.0  # seconds between the clocks; the Date header itself is cut to whole ones
_START: Final = "start one with `gradwatch serve`, or set GRADWATCH_SERVER to the address of one"


def check_server(settings: Settings) -> list[Check]:
    """Takes SECONDS at most. The token goes to no server that is not the one set or found."""
    until = time.monotonic() + SECONDS
    if settings.server is None:
        found, address = _own(settings, until)
        if address is None:
            return [found]
        checks = [found]
    else:
        checks, address = [], settings.server
    proxy = _proxy(address)
    answer = _reach(address, until)
    if isinstance(answer, Check):
        return [*checks, answer, *proxy]
    known = _version_of(address, answer)
    checks.append(known)
    if known.state == "fail":
        return [*checks, *proxy]
    return [*checks, *_clock(address, answer), *_let_in(address, settings.token, until, bool(proxy)), *proxy]


def _left(until: float) -> float:
    return max(0.1, min(_EACH, until - time.monotonic()))


def _own(settings: Settings, until: float) -> tuple[Check, str | None]:
    """The server of this user on this machine, by its server.json."""
    announced = settings.directory / "server.json"
    try:
        said = str(json.loads(announced.read_text())["url"])
    except (FileNotFoundError, NotADirectoryError):
        # Trainings work without one: their frames wait in the spool.
        return Check("server", "warn", f"no server runs on {settings.directory}", _START), None
    except (OSError, ValueError, KeyError, TypeError):
        return Check("server", "fail", f"{announced} cannot be read", f"delete it, and {_START}"), None
    try:
        found = within(_left(until), lambda: find_server(settings.directory))
    except NoAnswer:
        found = None
    if found is not None:
        return Check("server", "ok", f"{found} is the one of {announced}"), found
    answer = _reach(said, until)
    if isinstance(answer, Check):
        text = f"{said} does not answer, though {announced} names it"
        return Check("server", "warn", text, f"its server has ended without a word: {_START}"), None
    text = f"what answers at {said} is not the server that wrote {announced}"
    return Check("server", "fail", text, f"trainings send it nothing; delete {announced}, and {_START}"), None


def _reach(address: str, until: float) -> Answer | Check:
    try:
        return get(f"{address}/healthz", None, _left(until))
    except NoAnswer as error:
        advice = "is it running, is the port right, and does a firewall stand between? curl -v " + f"{address}/healthz"
        return Check("server", "fail", f"{address} cannot be reached: {error}", advice)


def _version_of(address: str, answer: Answer) -> Check:
    if 300 <= answer.status < 400:
        to = str(answer.headers.get("location", "elsewhere")).removesuffix("/healthz")
        return Check("server", "fail", f"{address} redirects to {to}", f"set GRADWATCH_SERVER={to}")
    if answer.status == 403:
        advice = f"start it with GRADWATCH_ALLOWED_HOSTS={urlsplit(address).hostname}"
        return Check("server", "fail", f"{address} does not answer to this name", advice)
    try:
        said: dict[str, Any] = json.loads(answer.body)
        version = str(said["version"])
        ready = said["status"] == "ready"
    except (ValueError, KeyError, TypeError):
        text = f"{address} answers (status {answer.status}), but is no gradwatch server"
        return Check("server", "fail", text, "give the address that `gradwatch serve` prints, with its path prefix")
    if not ready:
        return Check("server", "fail", f"{address} is not ready: {said['status']}", "see what its log says")
    if version.split(".")[:2] != __version__.split(".")[:2]:
        text = f"{address} is gradwatch {version}, this is {__version__}"
        return Check("server", "warn", text, "pip install --upgrade gradwatch on the older side")
    return Check("server", "ok", f"{address} is ready, gradwatch {version}")


def _clock(address: str, answer: Answer) -> list[Check]:
    try:
        theirs = parsedate_to_datetime(str(answer.headers["date"])).timestamp()
    except (ValueError, TypeError):
        return []
    apart = time.time() - theirs
    if abs(apart) <= _SKEW:
        return [Check("clock", "ok", f"within {_SKEW:.0f} s of the server's")]
    way = "ahead of" if apart > 0 else "behind"
    text = f"this machine's clock is {abs(apart):.0f} s {way} the server's"
    return [Check("clock", "warn", text, "steps appear at wrong times; set both clocks by NTP: timedatectl")]


def _let_in(address: str, token: str | None, until: float, has_proxy: bool) -> list[Check]:
    try:
        status = get(f"{address}/api/runs?limit=1", token, _left(until)).status
    except NoAnswer as error:
        return [
            Check("token", "fail", f"{address}/api/runs does not answer: {error}", "see what the server's log says")
        ]
    if status == 401:
        return [_refused(token)]
    if status != 200:
        return [Check("token", "fail", f"{address}/api/runs answers with status {status}", "see the server's log")]
    said = "is accepted" if token else "none is set, and none is asked for"
    return [Check("token", "ok", said), _socket(address, token, until, has_proxy)]


def _refused(token: str | None) -> Check:
    advice = "set GRADWATCH_TOKEN to the one that the server was started with"
    if token is None:
        return Check("token", "fail", "the server wants its token, and GRADWATCH_TOKEN is not set", advice)
    return Check("token", "fail", "the server does not take the token in GRADWATCH_TOKEN", advice)


def _socket(address: str, token: str | None, until: float, has_proxy: bool) -> Check:
    """The handshake of the socket that trainings send by; nothing is sent."""

    def handshake() -> None:
        with Connection.open(address, token):
            return

    try:
        within(_left(until), handshake)
    except (ConnectionFailed, NoAnswer) as error:
        host = urlsplit(address).hostname
        advice = f"let the proxy pass WebSockets, or go around it: NO_PROXY={host}"
        if not has_proxy:
            advice = "what stands before the server must pass WebSocket upgrades of /api/ingest and /api/live"
        return Check("websocket", "fail", f"frames cannot be sent: {error}", advice)
    return Check("websocket", "ok", "passes")


def _proxy(address: str) -> list[Check]:
    """The proxy that the environment puts between here and a server elsewhere."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    if host in LOOPBACK or not named or urllib.request.proxy_bypass(host):
        return []
    shown = urlsplit(named if "//" in named else f"//{named}")
    where = f"{shown.hostname}:{shown.port}" if _port(shown) else str(shown.hostname)  # never its password
    advice = f"if frames do not arrive, go around it: NO_PROXY={os.environ.get('NO_PROXY', '')},{host}"
    return [Check("proxy", "warn", f"the environment sends requests by {where}", advice.replace("=,", "="))]


def _port(parts: Any) -> int | None:
    try:
        port = parts.port
    except ValueError:
        return None
    return port if isinstance(port, int) else None
