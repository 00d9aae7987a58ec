"""Pictures of a real training: ``python -m tests.end_to_end.screenshots FOLDER [--all]``.

Starts the demo, waits until both trainings have ended and takes the pictures that the README shows; with ``--all`` the
run list and both run pages in three sizes, light and dark, to be looked at.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal, NamedTuple

from playwright.sync_api import Browser, sync_playwright

from tests.end_to_end.browser import ARGUMENTS, find_browser
from tests.processes import Process, clean_environment

SIZES = {"wide": (1440, 900), "tablet": (820, 1180), "phone": (390, 844)}
LANDSCAPE = "landscape"  # the part of the page alone
VIEWS = {"runs": None, "not-clipped": "not clipped", "clipped": "clipped at 0.5", LANDSCAPE: "clipped at 0.5"}


class Shot(NamedTuple):
    """One picture: which view, in which size and theme."""

    view: str
    size: str
    theme: Literal["light", "dark"]

    @property
    def name(self) -> str:
        return "-".join(self) + ".png"


README = [Shot("not-clipped", "wide", "dark"), Shot("clipped", "wide", "light"), Shot(LANDSCAPE, "wide", "light")]
THEMES: list[Literal["light", "dark"]] = ["light", "dark"]
ALL = [Shot(view, size, theme) for view, size, theme in itertools.product(VIEWS, SIZES, THEMES)]


def start_demo(directory: Path, steps: int) -> Process:
    command = [sys.executable, "-m", "gradwatch.cli", "demo", "--no-browser", "--steps", str(steps)]
    return Process(command, clean_environment(directory), directory / "demo.log")


def await_line(demo: Process, words: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    while words not in demo.output:
        assert demo.popen.poll() is None and time.monotonic() < until, demo.output
        time.sleep(0.2)


def take(browser: Browser, url: str, shot: Shot, folder: Path) -> None:
    width, height = SIZES[shot.size]
    height = 3000 if shot.view == LANDSCAPE else height  # all at once: nothing scrolls under the head of the page
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=shot.theme)
    page.goto(url)
    page.get_by_text("not clipped").first.wait_for()
    name = VIEWS[shot.view]
    if name is not None:
        page.get_by_role("link", name=name).first.click()
        page.get_by_text("Gradient norm by layer").first.wait_for()
    page.wait_for_timeout(2500)  # until the staggered panels have all been drawn
    if shot.view == LANDSCAPE:
        page.get_by_role("region", name="Loss landscape", exact=True).screenshot(path=folder / shot.name)
    else:
        page.screenshot(path=folder / shot.name, full_page=shot.size != "wide")
    page.close()


def main(folder: Path, shots: list[Shot], steps: int = 600) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, start_demo(Path(directory), steps) as demo:
        await_line(demo, "Both trainings have ended", 600)
        url = json.loads((Path(directory) / "demo" / "server.json").read_text())["url"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
            for shot in shots:
                take(browser, url, shot, folder)
            browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true")
    said = parser.parse_args()
    main(said.folder, ALL if said.all else README)
