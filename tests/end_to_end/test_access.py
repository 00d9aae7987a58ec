"""Who gets in, tried from a real browser: by a token, and from a page of somebody else's."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from pytest_playwright.pytest_playwright import CreateContextCallback

from tests.processes import ServerProcess

from . import watched_training as training
from .conftest import Complaints, Finished, OpenPage, start_training

TOKEN = "correct-horse-battery-staple"
WRONG = "That is not this server's token."
ATTEMPTS = """async server => {
  const socket = path => new Promise(done => {
    const opened = new WebSocket(server.replace("http", "ws") + path, "gradwatch.v1");
    opened.onopen = () => { opened.close(); done("open"); };
    opened.onerror = () => done("refused");
  });
  const fetched = (path, options) => fetch(server + path, options).then(answer => answer.text()).catch(() => "refused");
  return {
    live: await socket("/api/live"),
    ingest: await socket("/api/ingest"),
    runs: await fetched("/api/runs"),
    unseen: await fetched("/api/runs", {mode: "no-cors"}),
    acknowledge: await fetched("/api/alerts/1/ack", {method: "POST", mode: "no-cors"}),
  };
}"""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, GRADWATCH_TOKEN=TOKEN) as server:
        yield server
        assert TOKEN not in server.output


def session(context: BrowserContext) -> dict[str, Any] | None:
    """The one cookie there is."""
    found: list[dict[str, Any]] = [dict(cookie) for cookie in context.cookies()]
    assert len(found) <= 1
    return found[0] if found else None


def check_session(context: BrowserContext) -> None:
    cookie = session(context)
    assert cookie and cookie["httpOnly"] and cookie["sameSite"] == "Strict" and TOKEN not in cookie["value"]


def test_the_page_asks_for_the_token(
    guarded: ServerProcess, tmp_path: Path, page: Page, complaints: Complaints
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with start_training(tmp_path, 100, 0, GRADWATCH_TOKEN=TOKEN) as trainer:
        complaints.expect(r"status of 401 .*/login\)$", most=2)
        page.goto(guarded.url)
        expect(page).to_have_title("gradwatch: log in")
        give_token(page, "wrong")
        expect(page.get_by_text(WRONG)).to_be_visible()
        assert session(page.context) is None
        give_token(page, TOKEN)
        expect(page.get_by_role("link", name=training.NAME)).to_be_visible()
        check_session(page.context)
        assert trainer.wait() == 0, trainer.output
    # A session that ends while the page is open: the page itself asks, and goes on where it was.
    complaints.expect(r"status of 401 .*/api/runs", most=2)
    page.context.clear_cookies()
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.get_by_role("heading", name="This gradwatch asks for a token")).to_be_visible()
    give_token(page, "wrong")
    expect(page.get_by_role("alert")).to_have_text("That token is wrong.")
    give_token(page, TOKEN)
    expect(page.get_by_text("No run matches “nothing like it”")).to_be_visible()
    check_session(page.context)
    page.get_by_role("searchbox").fill("watched")
    page.get_by_role("link", name=training.NAME).click()
    status = page.get_by_role("region", name="Status")
    expect(status.get_by_text("finished", exact=True)).to_be_visible()
    assert asked and not [url for url in asked if TOKEN in url] and TOKEN not in page.url


def give_token(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()


def test_the_login_form_needs_no_script(guarded: ServerProcess, open_page: OpenPage, complaints: Complaints) -> None:
    page = open_page(java_script_enabled=False)
    complaints.expect(r"status of 401 .*/login\)$", most=1)
    page.goto(guarded.url)
    assert page.url == f"{guarded.url}/login"
    give_token(page, "wrong")
    expect(page.get_by_text(WRONG)).to_be_visible()
    give_token(page, TOKEN)
    page.wait_for_url(f"{guarded.url}/")
    expect(page).to_have_title("gradwatch")
    check_session(page.context)


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A web page of somebody else's, on another port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<!doctype html><title>elsewhere</title>"
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_page_of_another_origin_gets_nothing(
    finished: Finished, elsewhere: str, new_context: CreateContextCallback
) -> None:
    url = finished.server.url
    page = new_context().new_page()
    page.goto(elsewhere)
    assert page.evaluate(ATTEMPTS, url) == {
        "live": "refused",
        "ingest": "refused",
        "runs": "refused",
        "unseen": "refused",
        "acknowledge": "refused",
    }
    assert {alert["state"] for alert in finished.server.get("/api/alerts")["alerts"]} == {"open"}
    # From the dashboard's own origin the same reads succeed, so the refusals above are the origin's.
    page.goto(url)
    own = page.evaluate(ATTEMPTS.replace('await fetched("/api/alerts/1/ack"', 'await fetched("/healthz"'), url)
    assert (own["live"], own["ingest"]) == ("open", "open") and re.search(finished.run, own["runs"])
