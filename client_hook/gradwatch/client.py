"""Reading runs back from a server: ``gradwatch.Client``. Needs no torch, and of other libraries NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Final, Literal
from urllib.parse import quote, unquote, urlsplit

from gradwatch.discovery import find_server
from gradwatch.fetch import ClientError, Fetcher
from gradwatch.measurements import Records
from gradwatch.runs import Alert, Run, alerts
from gradwatch.settings import Settings

State = Literal["running", "finished", "failed", "lost"]
_PAGE: Final = 1000  # runs of one answer


class Client:
    """Reads from the server at ``url``; by default GRADWATCH_SERVER, or this user's server on this machine.

    ``token``: by default GRADWATCH_TOKEN. ``timeout``: seconds that the server may be silent. Whatever goes wrong is
    a ``gradwatch.ClientError`` with a sentence.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, timeout: float = 60.0) -> None:
        try:
            settings = Settings.gather(server=url)
        except ValueError as error:
            raise ClientError(str(error)) from None
        server = settings.server or find_server(settings.directory)
        if server is None:
            raise ClientError("no server found: start one with `gradwatch serve`, or give its address")
        self.url = server
        self._fetcher = Fetcher(server, token or settings.token, timeout)

    def __repr__(self) -> str:
        return f"gradwatch.Client({self.url!r})"

    def runs(
        self,
        project: str | None = None,
        *,
        state: State | None = None,
        search: str | None = None,
        limit: int | None = None,
    ) -> Records[Run]:
        """Runs, the newest first. ``search``: in name, project, group and tags."""
        return Records(self._runs(limit, project=project, state=state, q=search))

    def run(self, run: str) -> Run:
        """The run of that id, name, or address in the browser."""
        wanted = run_of(run)
        try:
            return Run.of(self._fetcher, self._fetcher.json(f"api/runs/{quote(wanted, safe='')}"))
        except ClientError as error:
            if error.status not in (404, 422):
                raise
        found = [one for one in self._runs(None, q=wanted) if one.name == wanted]
        if len(found) == 1:
            return found[0]
        raise ClientError(_several(wanted, found) if found else self._unknown(wanted), 404)

    def alerts(self, run: str | None = None, state: Literal["open", "acknowledged"] | None = None) -> Records[Alert]:
        """The newest 1,000 alerts of one run, by its id, or of all."""
        return alerts(self._fetcher, run, state)

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of any other route, such as ``client.get("api/runs/<id>/landscape")``."""
        return self._fetcher.json(path.lstrip("/"), **query)

    def _runs(self, limit: int | None, **query: Any) -> Iterator[Run]:
        given = 0
        while limit is None or given < limit:
            most = _PAGE if limit is None else min(_PAGE, limit - given)
            page = self._fetcher.json("api/runs", limit=most, offset=given, **query)["runs"]
            yield from (Run.of(self._fetcher, one) for one in page)
            given += len(page)
            if len(page) < most:
                return

    def _unknown(self, wanted: str) -> str:
        known = {name: None for run in self._runs(_PAGE) for name in (run.name, run.id)}
        close = get_close_matches(wanted, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"it has {len(known) // 2} runs"
        return f"{self.url} has no run {wanted!r}; {hint}"


def run_of(text: str) -> str:
    """The run's id or name in ``text``, which may be the address of its page."""
    parts = urlsplit(text)
    if parts.scheme in ("http", "https"):
        for place in (parts.fragment.partition("?")[0], parts.path):
            before, found, run = place.partition("/run/" if place is not parts.path else "/api/runs/")
            if found:
                return unquote(run.split("/")[0])
        raise ClientError(f"{text} is no address of a run: it has no #/run/ in it")
    return text


def _several(wanted: str, found: list[Run]) -> str:
    listed = ", ".join(f"{run.id} ({run.project}, {run.started_at:%Y-%m-%d %H:%M}, {run.state})" for run in found[:8])
    more = ", ..." if len(found) > 8 else ""
    return f"{len(found)} runs are called {wanted!r}; name one by its id: {listed}{more}"
