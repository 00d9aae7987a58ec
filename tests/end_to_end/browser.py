"""The browser that the end-to-end tests drive: ``python -m tests.end_to_end.browser`` makes sure that there is one.

The system's Chromium or Chrome, else the one that Playwright fetches, else Debian's by apt where that is allowed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def system_browser() -> str | None:
    """Path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, NAMES)), str(MAC) if MAC.exists() else None)


def playwright_browser() -> str | None:
    """Path of the Chromium that Playwright has fetched."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def find_browser() -> str | None:
    return system_browser() or playwright_browser()


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=600, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install_browser() -> str | None:
    """Fetch one, in the order of the module's docstring; its path, or None."""
    if _run(sys.executable, "-m", "playwright", "install", "chromium") and (path := playwright_browser()):
        return path
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        _run("apt-get", "update", "-qq")
        _run("apt-get", "install", "-y", "-qq", "chromium", "fonts-dejavu-core")
    return system_browser()


if __name__ == "__main__":
    if not (find_browser() or install_browser()):
        sys.exit("make: the browser tests need a browser: install Chromium or Google Chrome (apt install chromium)")
