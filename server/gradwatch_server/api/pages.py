"""The dashboard's files, the login form and the health probe."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, HTTPException, Query, Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from ..auth import SESSION_SECONDS, Sessions
from ..identity import Identity
from ..pulse import Pulse
from ..settings import plotly_script, static_folder

router = APIRouter()

_LOGIN_BYTES: Final = 4096
_LOGIN: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>gradwatch: log in</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="static/icon.svg" type="image/svg+xml">
<style>body{{font:16px system-ui;margin:20vh auto;max-width:22rem;padding:0 1rem;color-scheme:light dark}}
input,button{{font:inherit;padding:.5rem;width:100%;box-sizing:border-box;margin:.25rem 0}}</style>
<h1>gradwatch</h1><p>{message}</p><form method="post" action="login">
<label>Token <input type="password" name="token" autocomplete="current-password" autofocus required></label>
<button>Log in</button></form></html>"""


@router.get("/healthz")
async def healthz(
    request: Request, response: Response, challenge: Annotated[str | None, Query(pattern=r"^[0-9a-fA-F]{1,64}$")] = None
) -> dict[str, Any]:
    """Whether the server is ready; and, to who can check it, that it is the one of server.json.

    503 while the database is away. With a full disk the server still shows what it has, and that is 200.
    """
    identity: Identity = request.app.state.identity
    pulse: Pulse = request.app.state.pulse
    answer = {"status": pulse.status, "instance": identity.instance, "version": identity.version}
    if pulse.away is not None:
        response.status_code = 503
    if challenge is not None:
        answer["proof"] = hmac.new(identity.secret.encode(), challenge.encode(), "sha256").hexdigest()
    return answer


@router.get("/")
async def index() -> FileResponse:
    """The dashboard."""
    page = static_folder() / "index.html"
    if not page.is_file():
        raise HTTPException(404, "the dashboard's files are missing from this installation")
    return FileResponse(page, headers={"cache-control": "no-cache"})


@router.get("/static/plotly.min.js")
async def plotly() -> FileResponse:
    """plotly.js as the installed plotly package carries it."""
    script = plotly_script()
    if script is None:
        raise HTTPException(404, "the Python package plotly is not installed: pip install 'gradwatch[server]'")
    return FileResponse(script, media_type="text/javascript", headers={"cache-control": "max-age=86400"})


@router.get("/static/{path:path}")
async def static(path: str) -> FileResponse:
    """One of the dashboard's files."""
    folder = static_folder().resolve()
    file = _inside(folder, path)
    if file is None:
        raise HTTPException(404, "there is no such file")
    return FileResponse(file, headers={"cache-control": "no-cache"})


def _inside(folder: Path, path: str) -> Path | None:
    if not re.fullmatch(r"[\w./-]+", path):
        return None
    file = (folder / path).resolve()
    return file if file.is_relative_to(folder) and file.is_file() else None


@router.get("/login")
async def login_form() -> HTMLResponse:
    """The form that asks for the token."""
    return HTMLResponse(_LOGIN.format(message="This server asks for its token."))


@router.post("/login")
async def login(request: Request) -> Response:
    """Exchange the token for a session cookie."""
    sessions: Sessions = request.app.state.sessions
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LOGIN_BYTES:
            raise HTTPException(413, "a login takes at most 4 KiB")
    given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
    if not sessions.token_is(given):
        await asyncio.sleep(0.5)  # a person does not notice; a guesser does
        return HTMLResponse(_LOGIN.format(message="That is not this server's token."), 401)
    answer = RedirectResponse("./", 303)
    answer.set_cookie(
        sessions.cookie,
        sessions.make(time.time()),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer
