"""The system's browser with a fresh profile, pages that complain, and runs to look at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page
from pytest_playwright.pytest_playwright import CreateContextCallback

from tests.end_to_end.browser import ARGUMENTS, system_browser
from tests.processes import Process, ServerProcess, clean_environment, python

FINISHED_STEPS = 2400  # more than any chart here has pixels
OpenPage = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests go last: Playwright's event loop lives on in this thread, where asyncio.run() then cannot work."""
    items.sort(key=lambda item: "browser_name" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def base_url() -> None:
    """Every test has a server of its own; and the plugin's fixture of this name makes pytest 9 warn."""


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """Without a system's Chromium, Playwright takes the one that it has fetched itself."""
    path = system_browser()
    return {**browser_type_launch_args, **({"executable_path": path} if path else {}), "args": ARGUMENTS}


class Complaints:
    """What pages complained of: console errors, uncaught errors, and requests to others than their server."""

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._expected: list[tuple[str, int]] = []

    def expect(self, pattern: str, most: int) -> None:
        """Up to ``most`` complaints that ``pattern`` is found in are part of what the test does."""
        self._expected.append((pattern, most))

    def listen(self, page: Page) -> None:
        hosts: list[str] = []

        def asked(url: str) -> None:
            parts = urlsplit(url)
            if parts.scheme in ("data", "blob"):
                return
            hosts.append(parts.netloc)  # the first is the page's own
            if parts.netloc != hosts[0]:
                self._heard.append(f"request to another host: {url}")

        page.on("console", lambda line: self._heard.append(f"{line.type}: {line.text} ({line.location['url']})")
                if line.type == "error" else None)  # fmt: skip
        page.on("pageerror", lambda error: self._heard.append(f"uncaught: {error}"))
        page.on("request", lambda request: asked(request.url))
        page.on("websocket", lambda socket: asked(socket.url))

    def unexpected(self) -> list[str]:
        left = list(self._heard)
        for pattern, most in self._expected:
            found = [line for line in left if re.search(pattern, line)][:most]
            for line in found:
                left.remove(line)
        return left


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Of all pages of the test; asserted to be none but the expected ones."""
    heard = Complaints()
    yield heard
    assert not heard.unexpected(), "\n".join(heard.unexpected())


@pytest.fixture
def open_page(complaints: Complaints, new_context: CreateContextCallback) -> OpenPage:
    """Opens a page in a fresh profile, in the size and theme said."""

    def opened(width: int = 1440, height: int = 900, **options: Any) -> Page:
        page = new_context(viewport={"width": width, "height": height}, **options).new_page()
        page.set_default_timeout(15_000)
        complaints.listen(page)
        return page

    return opened


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """An empty server on ``tmp_path``. Name it before the page, so that the page closes first."""
    with ServerProcess(tmp_path) as started:
        yield started


@dataclass(frozen=True)
class Finished:
    """A run of FINISHED_STEPS that has ended, and the server that shows it."""

    server: ServerProcess
    run: str
    last_step: int = FINISHED_STEPS - 1

    @property
    def address(self) -> str:
        return f"{self.server.url}/#/run/{self.run}"


@pytest.fixture(scope="package")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """For all tests that only look."""
    directory = tmp_path_factory.mktemp("finished")
    with ServerProcess(directory) as server, start_training(directory, FINISHED_STEPS, 0) as training:
        assert training.wait() == 0, training.output
        found = server.await_json("/api/runs", lambda found: [run for run in found["runs"] if run["ended_at"]])
        yield Finished(server, found["runs"][0]["id"])


def start_training(directory: Path, steps: int, pause: float, **said: str) -> Process:
    """watched_training.py, streaming to the server of ``directory``."""
    script = Path(__file__).with_name("watched_training.py")
    return python(script, clean_environment(directory, **said), directory / "training.log", str(steps), str(pause))
