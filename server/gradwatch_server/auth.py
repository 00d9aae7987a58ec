"""Who may come in: Host, Origin and token, checked before every HTTP and websocket route."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .settings import Settings, is_loopback

SESSION_SECONDS: Final = 30 * 86_400
POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
# Neither tells anything of the runs: a health probe, the form that asks for the token, our own published files.
_OPEN: Final = ("/healthz", "/login")
_OPEN_FOLDER: Final = "/static/"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Sessions:
    """Signed session values for the browser's cookie; the token itself never leaves the login form."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._key = hmac.digest((token or "").encode(), b"gradwatch session", "sha256")
        # Browsers keep one cookie jar for all ports of a host, so servers with other tokens need other names.
        self.cookie = "gradwatch_" + self._sign("name")[:8]

    def token_is(self, given: str) -> bool:
        """Whether ``given`` is the token, in constant time."""
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    def make(self, now: float) -> str:
        """A session that begins now."""
        text = f"{int(now) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        return f"{text}.{self._sign(text)}"

    def is_valid(self, session: str, now: float) -> bool:
        """Whether ``session`` was made here and has not run out."""
        text, _, signature = session.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(text).encode()):
            return False
        return int(text.partition(".")[0]) > now

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, settings: Settings, sessions: Sessions) -> None:
        self._app, self._sessions = app, sessions
        self._needs_token = settings.secret is not None
        named = [*settings.allowed_hosts] if is_any_address(settings.host) else [*settings.allowed_hosts, settings.host]
        self._hosts = frozenset(_plain(host) for host in named)
        self._origins = frozenset((_plain(host), _port(host)) for host in settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await refusal(scope, receive, _with_headers(send))
        else:
            await _refuse_websocket(refusal, scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == "host"]
        host = _plain(hosts[0]) if len(hosts) == 1 else ""
        if not (is_loopback(host) or (host and host in self._hosts)):
            return _no(403, "this address is not served: list the name in GRADWATCH_ALLOWED_HOSTS to allow it")
        if not self._same_origin(scope, headers, hosts[0]):
            return _no(403, "requests from other origins are refused")
        if self._needs_token and not self._may_enter(scope, headers):
            if scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) in ("", "/"):
                return RedirectResponse("login", 303)
            return _no(401, "a token is needed: send it as 'Authorization: Bearer <token>', or log in at login")
        return None

    def _same_origin(self, scope: Scope, headers: list[tuple[str, str]], host: str) -> bool:
        origins = [value for name, value in headers if name == "origin"]
        sites = [value for name, value in headers if name == "sec-fetch-site"]
        # A browser says where a request comes from; a program that is none says nothing.
        foreign = any(site not in ("same-origin", "none") for site in sites)
        if foreign and (scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS):
            return False
        return len(origins) <= 1 and all(self._origin_fits(origin, host) for origin in origins)

    def _origin_fits(self, origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
            port = parts.port
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            return False
        name, default = _plain(parts.netloc), {"http": 80, "https": 443}[parts.scheme]
        if name == _plain(host) and (port or default) == (_port(host) or default):
            return True
        # Behind a proxy the Host is the proxy's choice; the name that people use then stands in the settings.
        return (name, None if port == default else port) in self._origins

    def _may_enter(self, scope: Scope, headers: list[tuple[str, str]]) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] == "http" and (path in _OPEN or path.startswith(_OPEN_FOLDER)):
            return True
        for name, value in headers:
            kind, _, token = value.partition(" ")
            if name == "authorization" and kind.lower() == "bearer" and self._sessions.token_is(token.strip()):
                return True
        return any(self._has_session(value) for name, value in headers if name == "cookie")

    def _has_session(self, cookies: str) -> bool:
        try:
            jar = SimpleCookie(cookies)
        except CookieError:
            return False
        morsel = jar.get(self._sessions.cookie)
        return morsel is not None and self._sessions.is_valid(morsel.value, time.time())


def is_any_address(host: str) -> bool:
    """Whether ``host`` is 0.0.0.0 or ::, which listens everywhere and names nothing."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _plain(host: str) -> str:
    """A Host header's name or address without port, brackets, capitals and the root's dot."""
    host = host.strip().lower()
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name if not rest or rest[1:].isdigit() and rest[0] == ":" else ""
    name, _, port = host.partition(":")
    if ":" in port:  # a bare IPv6 address, as it stands in settings
        return host
    return name.removesuffix(".") if not port or port.isdigit() else ""


def _port(host: str) -> int | None:
    port = host.rpartition(":")[2]
    return int(port) if port.isdigit() and not host.endswith("]") and ":" in host else None


def _no(status: int, sentence: str) -> Response:
    extra = {"www-authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse({"detail": sentence}, status, headers=extra)


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return wrapped


async def _refuse_websocket(refusal: Response, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    start: dict[str, Any] = {"status": refusal.status_code, "headers": _raw(refusal.raw_headers)}
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": refusal.body})


def _raw(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    # The websocket side of uvicorn counts the length itself.
    return [(name, value) for name, value in headers if name != b"content-length"]
