"""The application: the only place where the parts meet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from fastapi import FastAPI, WebSocket
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

from .alerts import Judge
from .api import alerts, control, events, export, histograms, landscape, layers, pages, runs, series
from .api.sparkline import Sparklines
from .auth import Gate, Sessions
from .commands import Commands
from .hub import Hub
from .identity import Identity
from .ingest import Ingest
from .lifecycle import Lifecycle
from .live import Live
from .notify import Notifier
from .pulse import Pulse
from .retention import Retention
from .settings import Settings
from .store import deletion
from .store.engine import AWAY, tell, trouble
from .store.store import Store

log = logging.getLogger("gradwatch")

_BEGIN_ANEW: Final = 2.0  # seconds


def _nothing(boundary: str) -> None:
    return None


def create_app(
    settings: Settings, reached: Callable[[str], None] = _nothing, identity: Identity | None = None
) -> FastAPI:
    """The application for ``settings``.

    ``reached`` is called at the boundaries "received", "before_commit", "after_commit", "before_rules", "before_seal"
    and "after_seal", so that a test can stop the process exactly there.
    """
    hub = Hub()
    store = Store(settings.database_url, reached)
    store.on_commit(hub.publish)
    notifier = Notifier(store, settings.webhook_url)
    judge = Judge(store, reached, notifier.wake, notify=settings.webhook_url is not None)
    lifecycle = Lifecycle(store, settings.lost_after_seconds)
    pulse = Pulse(store)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        settings.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        await store.open()
        work = [pulse.run, judge.run, notifier.run, lifecycle.run, lambda: deletion.sweep(store)]
        if settings.keep_raw_days is not None:
            work.append(Retention(store, settings.keep_raw_days * 86_400).run)
        tasks = [asyncio.create_task(_kept_at(task)) for task in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store.close()

    app = FastAPI(title="gradwatch", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.state.store, app.state.pulse, app.state.sparklines = store, pulse, Sparklines(store.queries)
    app.state.identity, app.state.sessions = identity or Identity(), Sessions(settings.secret)
    for part in (pages, runs, series, layers, histograms, landscape, events, alerts, control, export):
        app.include_router(part.router)
    app.state.commands = Commands()
    _add_sockets(app, Ingest(store, hub, app.state.commands, reached), Live(store, hub))
    app.add_exception_handler(RequestValidationError, _bad_request)
    for failure in AWAY:
        app.add_exception_handler(failure, _no_database)
    app.add_middleware(Gate, settings=settings, sessions=app.state.sessions)
    return app


def _add_sockets(app: FastAPI, ingest: Ingest, live: Live) -> None:
    @app.websocket("/api/ingest")
    async def take_frames(websocket: WebSocket) -> None:
        await ingest.serve(websocket)

    @app.websocket("/api/live")
    async def show(websocket: WebSocket) -> None:
        await live.serve(websocket)


async def _kept_at(task: Callable[[], Awaitable[None]]) -> None:
    """Run ``task`` to its end; begin it anew where it fails, as it does while the database is away."""
    while True:
        try:
            return await task()
        except Exception as error:
            tell(log, "a background task of the server failed and is begun anew", error)
            await asyncio.sleep(_BEGIN_ANEW)


async def _bad_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    # The kinds of command are in there, too, though the sender wrote none of them as a field.
    where = ".".join(str(part) for part in first["loc"] if part not in ("query", "path", "body", *control.COMMANDS))
    return JSONResponse({"detail": f"'{where or 'the body'}' is not right: {first['msg']}"}, 422)


async def _no_database(request: Request, error: Exception) -> JSONResponse:
    if trouble(error) is None:
        raise error
    tell(log, f"no answer to {request.method} {request.url.path}", error)
    return JSONResponse({"detail": "the database cannot be used now: ask again"}, 503, {"retry-after": "2"})
