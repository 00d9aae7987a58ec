"""Pictures of a real training for README and docs: ``python -m tests.end_to_end.screenshots FOLDER``.

Starts the demo, waits until both trainings have ended and takes the run list and both run pages, in three sizes, light
and dark. Only what README or docs show is kept under its plain name.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.end_to_end.browser import ARGUMENTS, find_browser
from tests.processes import Process, clean_environment

SIZES = {"wide": (1440, 900), "tablet": (820, 1180), "phone": (390, 844)}


def start_demo(directory: Path, steps: int) -> Process:
    command = [sys.executable, "-m", "gradwatch.cli", "demo", "--no-browser", "--steps", str(steps)]
    return Process(command, clean_environment(directory), directory / "demo.log")


def await_line(demo: Process, words: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    while words not in demo.output:
        assert demo.popen.poll() is None and time.monotonic() < until, demo.output
        time.sleep(0.2)


def take(browser: Browser, url: str, folder: Path) -> None:
    for theme in ("light", "dark"):
        for size, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
            page.goto(url)
            page.get_by_text("not clipped").first.wait_for()
            page.wait_for_timeout(1500)
            page.screenshot(path=folder / f"runs-{size}-{theme}.png")
            for name in ("not clipped", "clipped at 0.25"):
                page.goto(url)
                page.get_by_role("link", name=name, exact=False).first.click()
                page.wait_for_timeout(3500)
                stem = name.replace(" at 0.25", "").replace(" ", "-")
                page.screenshot(path=folder / f"{stem}-{size}-{theme}.png", full_page=size != "wide")
            page.close()


def main(folder: Path, steps: int = 600) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, start_demo(Path(directory), steps) as demo:
        await_line(demo, "Both trainings have ended", 600)
        url = json.loads((Path(directory) / "demo" / "server.json").read_text())["url"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
            take(browser, url, folder)
            browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
