"""The landscape of a model that really trains, from the hook to the page and, for a surface, back again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.processes import ServerProcess, clean_environment, python

from .conftest import OpenPage
from .reading import region, until

STEPS, PAUSE = 6000, 0.004
LONGEST = "name => Math.max(0, ...(document.querySelector(`.${name} .plot`).data ?? []).map(({x}) => x?.length ?? 0))"


def drawn(page: Page, name: str) -> int:
    """Points of the longest line or row of dots of a picture."""
    count: int = page.evaluate(LONGEST, name)
    return count


def computed(page: Page) -> int:
    """Points that the surface has by now, as its caption says."""
    said = re.search("([0-9]+) of [0-9]+ points", region(page, "Loss surface").locator(".caption").inner_text())
    return int(said[1]) if said else 0


def grows(page: Page, read: Callable[[Page], int], at_least: int) -> None:
    """The number that is read off the page becomes larger and larger."""
    first = until(page, lambda: read(page), lambda count: count >= at_least, seconds=40)
    until(page, lambda: read(page), lambda count: count > first, seconds=40)


@pytest.mark.timeout(180)
def test_tape_surface_and_map_grow_and_a_surface_comes_on_demand(
    tmp_path: Path, server: ServerProcess, open_page: OpenPage
) -> None:
    script = Path(__file__).with_name("probed_training.py")
    environment = clean_environment(tmp_path)
    with python(script, environment, tmp_path / "training.log", str(STEPS), str(PAUSE)) as training:
        found = server.await_json("/api/runs", lambda found: found["runs"])
        run = found["runs"][0]["id"]
        page = open_page()
        page.goto(f"{server.url}/#/run/{run}")
        expect(region(page, "Loss landscape")).to_be_visible(timeout=30_000)
        grows(page, lambda page: drawn(page, "panel-tape"), 2)
        grows(page, computed, 5)
        grows(page, lambda page: drawn(page, "figure-map"), 3)
        form = page.get_by_role("form", name="Ask for a surface")
        form.get_by_label("Plane").select_option("random")
        form.get_by_label("Detail").select_option("9 × 9")
        form.get_by_label("Seed").fill("7")
        form.get_by_role("button", name="Compute a surface").click()
        landscape = f"/api/runs/{run}/landscape"

        def asked(landscape: dict[str, Any]) -> list[dict[str, Any]]:
            return [entry for entry in landscape["surfaces"] if entry["request"] and entry["computed"] == 81]

        whole = server.await_json(landscape, asked, seconds=60)
        (entry,) = asked(whole)
        assert entry["plane"] == "random" and entry["levels"] == 9
        caption = region(page, "Loss surface").locator(".caption")
        expect(caption).to_contain_text(re.compile("seed 7 .*81 of 81 points"), timeout=15_000)
        events = server.await_json(f"/api/runs/{run}/events?kind=control", lambda found: found["events"])
        assert events["events"][0]["name"] == "probe_landscape"
        # A verdict has a standard error, because there are three batches.
        judged = server.await_json(landscape, lambda found: found["verdict"]["events"], seconds=60)
        assert all(event["standard_error"] > 0 for event in judged["verdict"]["events"])
        expect(region(page, "Did this clip help?")).to_contain_text(re.compile("[0-9]+ probed clip"))
        assert training.popen.poll() is None, training.output
