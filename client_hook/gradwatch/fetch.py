"""Requests to a server by the standard library alone; what goes wrong is said in a sentence."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, Final
from urllib.parse import urlencode, urlsplit

from gradwatch import __version__

FRAMES: Final = "application/octet-stream"
JSON: Final = "application/json"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_SENTENCE_BYTES: Final = 64 << 10  # read of an answer that is an error


class ClientError(Exception):
    """What a server could not give; the message says why, and where it can, what to do. ``status``: of its answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: followed, it would take the token along to wherever it leads."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


class Answer:
    """An answer whose body is read as it comes."""

    def __init__(self, server: str, response: Any) -> None:
        self._server, self._response = server, response
        self.headers: Message = response.headers

    def parts(self, size: int = 1 << 18) -> Iterator[bytes]:
        """The body in parts of at most ``size`` bytes. Raises ClientError when it ends before its end."""
        taken = 0
        try:
            while part := self._response.read1(size):
                taken += len(part)
                yield part
            if self._response.length:  # which read1, unlike read, does not look at
                raise HTTPException(f"{self._response.length} more were announced")
        except (OSError, HTTPException) as error:
            raise ClientError(f"{self._server} broke off after {taken} bytes: {_reason(error)}") from None

    def whole(self) -> bytes:
        """All of the body."""
        return b"".join(self.parts())


class Fetcher:
    """Asks one server. ``seconds``: how long it may be silent."""

    def __init__(self, server: str, token: str | None, seconds: float) -> None:
        self.server = server
        self._token, self._seconds = token, seconds
        handlers: list[Any] = [_NoRedirect()]
        if urlsplit(server).hostname in _LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))  # none can know this machine's own servers
        self._opener = urllib.request.build_opener(*handlers)

    def json(self, path: str, **query: Any) -> Any:
        """What the route ``path`` (from "api/" on) answers; arguments that are None are left out."""
        with self.open(path, JSON, **query) as answer:
            body = answer.whole()
        try:
            return json.loads(body)
        except ValueError:
            raise ClientError(f"{self.server} answers, but is no gradwatch server") from None

    def frames(self, path: str, **query: Any) -> bytes:
        """The frames that the route answers with."""
        with self.open(path, FRAMES, **query) as answer:
            if answer.headers.get_content_type() != FRAMES:
                raise ClientError(f"{self.server} is older than this client: upgrade gradwatch there")
            return answer.whole()

    @contextmanager
    def open(self, path: str, accept: str, **query: Any) -> Iterator[Answer]:
        """The answer of a route, for a block. Raises ClientError."""
        said = urlencode({name: value for name, value in query.items() if value is not None}, doseq=True)
        address = f"{self.server}/{path}{'?' if said else ''}{said}"
        headers = {"Accept": accept, "User-Agent": f"gradwatch/{__version__}"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            response = self._opener.open(urllib.request.Request(address, headers=headers), timeout=self._seconds)
        except urllib.error.HTTPError as refusal:
            with refusal:
                raise self._refused(refusal) from None
        except (OSError, HTTPException, ValueError) as error:
            raise ClientError(
                f"{self.server} cannot be reached: {_reason(error)}. Is `gradwatch serve` running there?"
            ) from None
        with response:
            yield Answer(self.server, response)

    def _refused(self, refusal: urllib.error.HTTPError) -> ClientError:
        status = refusal.code
        if status == 401 and self._token:
            return ClientError(f"{self.server} does not take this token: give the one it was started with", status)
        if status == 401:
            return ClientError(f"{self.server} wants its token: pass token=, or set GRADWATCH_TOKEN", status)
        if 300 <= status < 400:
            return ClientError(
                f"{self.server} redirects to {refusal.headers.get('location')}: use that address", status
            )
        try:
            detail = str(json.loads(refusal.read(_SENTENCE_BYTES))["detail"])
        except (ValueError, KeyError, TypeError, OSError, HTTPException):
            detail = f"status {status}; is it a gradwatch server, and is its address right?"
        return ClientError(f"{self.server} answered: {detail}", status)


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__
