"""One request, with a bound on how long it can take whatever the network does."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from gradwatch.health.environment import LOOPBACK

T = TypeVar("T")


class NoAnswer(Exception):
    """There was none; the message says why."""


class Answer:
    """Of a server: ``status``, ``headers`` and the first 64 KiB of the body."""

    def __init__(self, status: int, headers: Message, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: followed, it would take the token along to wherever it leads."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def get(address: str, token: str | None, seconds: float) -> Answer:
    """GET ``address``. Raises NoAnswer."""
    return within(seconds, lambda: _get(address, token, seconds))


def _get(address: str, token: str | None, seconds: float) -> Answer:
    handlers: list[Any] = [_NoRedirect()]
    if urlsplit(address).hostname in LOOPBACK:
        handlers.append(urllib.request.ProxyHandler({}))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(address, headers={**headers, "Accept": "application/json"})
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=seconds) as answer:
            return Answer(answer.status, answer.headers, answer.read(1 << 16))
    except urllib.error.HTTPError as refusal:
        with refusal:
            return Answer(refusal.code, refusal.headers, refusal.read(1 << 16))
    except (OSError, HTTPException, ValueError) as error:
        raise NoAnswer(str(getattr(error, "reason", None) or error)) from None


def within(seconds: float, call: Callable[[], T]) -> T:
    """``call()`` in a thread of its own, given up after ``seconds``: looking up a name knows no time limit.

    Raises what ``call`` raises, and NoAnswer.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(max(0.0, seconds))
    if errors:
        raise errors[0]
    if not results:
        raise NoAnswer(f"nothing within {seconds:.1f} s")
    return results[0]
