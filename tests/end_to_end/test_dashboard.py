"""The dashboard in a real browser, before real trainings."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.processes import ServerProcess

from . import watched_training as training
from .conftest import Complaints, Finished, OpenPage, start_training
from .reading import (
    PANELS,
    await_painted,
    await_step,
    await_steps,
    drag_across,
    drawn_steps,
    region,
    shown_range,
    shown_step,
    tile,
    until,
)

BACKWARD = f"Non-finite gradient in {training.BACKWARD_LAYER} at step {training.BACKWARD_STEP}"
FORWARD = (
    f"NaN or Inf born in the forward pass at step {training.FORWARD_STEP}, at or before {training.FORWARD_LAYER}"
)  # fmt: skip
REFUSED = r"ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|WebSocket connection to .* failed"


def test_a_training_is_seen_while_it_runs_and_when_it_has_ended(
    server: ServerProcess, tmp_path: Path, page: Page
) -> None:
    page.goto(server.url)
    expect(page.get_by_text("Waiting for the first run")).to_be_visible()
    with start_training(tmp_path, 600, 0.009) as trainer:
        page.get_by_role("link", name=training.NAME).click()
        status = region(page, "Status")
        expect(status.get_by_text("running", exact=True)).to_be_visible()
        page.evaluate("window.sameDocument = true")
        seen = await_step(page, above=-1)
        for _ in range(3):
            seen = await_step(page, above=seen)
        assert trainer.popen.poll() is None, "the training ended before the page was looked at"
        standing_still_while_steps_arrive(page)
        # A new alert is told at once, over the page, and stays in the list.
        expect(region(page, "New alerts").get_by_text(FORWARD)).to_be_visible(timeout=15_000)
        assert trainer.wait() == 0, trainer.output
    expect(status.get_by_text("finished", exact=True)).to_be_visible()
    assert await_step(page, above=598) == 599
    everything_is_drawn(page, 600)
    page.get_by_role("link", name="gradwatch", exact=True).click()
    expect(page.get_by_role("row", name=training.NAME)).to_contain_text("finished")
    assert page.evaluate("window.sameDocument") is True


def standing_still_while_steps_arrive(page: Page) -> None:
    """Without "follow" the view keeps its steps while the status bar goes on."""
    follow = page.get_by_role("switch", name="Follow")
    expect(follow).to_be_checked()
    follow.click()
    expect(follow).not_to_be_checked()
    still, step = shown_range(page), shown_step(page)
    await_step(page, above=step + 5)
    assert shown_range(page) == still
    follow.click()
    expect(follow).to_be_checked()
    until(page, lambda: shown_range(page), lambda range: range[1] > still[1])
    page.get_by_role("button", name="All", exact=True).click()


def everything_is_drawn(page: Page, steps: int) -> None:
    """Every panel shows something, and the lines show every step; the two NaNs are gaps, with a cross."""
    for panel in ("loss", "norm", "ratio"):
        await_steps(page, panel, steps)
    for panel, colours in {"heatmap": 20, "lane": 3, "norm": 2}.items():
        await_painted(page, panel, colours)
    share = re.match(r"([\d.]+) %", tile(page, "Clipped, last 200").inner_text())
    assert share and 10 < float(share[1]) < 90
    expect(tile(page, "Non-finite")).to_have_text("✕ 2")
    series = page.get_by_role("combobox", name="Series to draw")
    series.select_option("accuracy")
    until(page, lambda: drawn_steps(page, "other"), lambda found: len(found) > 10)
    page.keyboard.press("Escape")
    lane = region(page, "Clipped steps, spikes, non-finite steps, restarts and marks")
    expect(lane).to_contain_text(re.compile(r"marks\s*1"))


def test_alerts_name_the_layer_the_step_and_the_pass(finished: Finished, page: Page) -> None:
    page.goto(finished.address)
    alerts = region(page, "Alerts")
    forward, backward = (alerts.get_by_role("listitem").filter(has_text=title) for title in (FORWARD, BACKWARD))
    expect(backward).to_contain_text("the loss is finite")
    expect(backward).to_contain_text(f"1 × · step {training.BACKWARD_STEP}")
    expect(forward).to_contain_text("the loss itself is nan, so it was born in the forward pass")
    expect(forward).to_contain_text(f"1 × · step {training.FORWARD_STEP}")
    first = "Layers, the first to go first"
    for alert, layer in ((forward, training.FORWARD_LAYER), (backward, training.BACKWARD_LAYER)):
        expect(alert.get_by_role("list", name=first).get_by_role("listitem").first).to_have_text(layer)
    found = finished.server.get(f"/api/alerts?run={finished.run}")["alerts"]
    told = {(alert["title"], alert["first_step"], alert["count"], alert["layers"][0]) for alert in found}
    assert told == {
        (BACKWARD, training.BACKWARD_STEP, 1, training.BACKWARD_LAYER),
        (FORWARD, training.FORWARD_STEP, 1, training.FORWARD_LAYER),
    }
    backward.get_by_role("button", name=BACKWARD).click()
    expect(page.locator(".toolbar .detail")).to_have_text(f"every step · at {training.BACKWARD_STEP}")
    norm = region(page, "Total gradient norm before clipping, log axis, with the clipping threshold")
    expect(norm).to_contain_text("NaN")
    expect(region(page, "Gradient norm of every layer over the steps, log colour")).to_contain_text("non-finite")


def test_zooming_reaches_raw_steps_and_leads_back(finished: Finished, page: Page) -> None:
    page.goto(finished.address)
    whole, last = page.url, finished.last_step
    detail = page.locator(".toolbar .detail")
    expect(detail).to_have_text("4 steps per point")
    until(page, lambda: drawn_steps(page, "loss"), lambda found: len(found) == (last + 1) / 4)
    drag_across(page, "loss", 0.25, 0.4)
    page.wait_for_url(re.compile(r"#/run/\w+\?first=\d+&last=\d+$"))
    expect(detail).to_contain_text("every step")
    first, end = shown_range(page)
    assert abs(first - 0.25 * last) < 0.02 * last and abs(end - 0.4 * last) < 0.02 * last
    # The steps before the view are there for the clip ratio; those in view are all there, one by one.
    until(page, lambda: drawn_steps(page, "norm"), lambda found: set(range(first, end + 1)) <= set(found))
    zoomed = page.url
    drag_across(page, "heatmap", 0.4, 0.6)
    page.wait_for_url(lambda url: url not in (whole, zoomed))
    page.go_back()
    page.wait_for_url(zoomed)
    until(page, lambda: shown_range(page), lambda range: range == (first, end))
    page.get_by_role("button", name="Reset zoom").click()
    page.wait_for_url(whole)
    until(page, lambda: shown_range(page), lambda range: range == (0, last))
    follow = page.get_by_role("switch", name="Follow")
    follow.click()
    page.wait_for_url(re.compile(rf"first=0&last={last}$"))
    expect(follow).not_to_be_checked()
    follow.click()
    page.wait_for_url(re.compile(rf"\?span={last + 1}$"))
    expect(follow).to_be_checked()
    page.keyboard.press("0")
    page.wait_for_url(whole)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_both_themes_fit_wide_and_narrow(
    finished: Finished, open_page: OpenPage, theme: str, size: tuple[int, int]
) -> None:
    page = open_page(*size, color_scheme=theme)
    page.goto(finished.server.url)
    expect(page.get_by_role("row", name=training.NAME)).to_be_visible()
    nothing_sticks_out(page)
    page.get_by_role("link", name=training.NAME).click()
    for panel in PANELS:
        shown = page.locator(f".panel-{panel}")
        shown.scroll_into_view_if_needed()
        until(page, shown.bounding_box, lambda box: box and box["x"] >= 0 and box["height"] > 40)
        box = shown.bounding_box()
        assert box and box["x"] + box["width"] <= size[0]
        expect(shown.locator(".main-svg").first).to_be_attached()
    await_painted(page, "heatmap", 20)
    nothing_sticks_out(page)
    assert brightness(page) == theme
    for choice in ("light", "dark", "system"):
        page.get_by_role("button", name=re.compile("^Theme: ")).click()
        expect(page.get_by_role("button", name=f"Theme: {choice}")).to_be_visible()
        assert brightness(page) == (theme if choice == "system" else choice)


def nothing_sticks_out(page: Page) -> None:
    width, inside = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width <= inside


def brightness(page: Page) -> str:
    """The theme as a person sees it: "light" or "dark"."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return "light" if sum(map(int, re.findall(r"\d+", colour)[:3])) > 3 * 128 else "dark"


def test_the_chosen_theme_is_remembered(finished: Finished, page: Page) -> None:
    page.goto(finished.server.url)
    page.get_by_role("button", name="Theme: system").click()
    page.get_by_role("button", name="Theme: light").click()
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert brightness(page) == "dark"


def test_the_page_outlives_a_killed_server(tmp_path: Path, page: Page, complaints: Complaints) -> None:
    complaints.expect(REFUSED, most=60)
    server = ServerProcess(tmp_path)
    with start_training(tmp_path, 5000, 0.012) as trainer:
        run = server.await_json("/api/runs", lambda found: found["runs"])["runs"][0]["id"]
        page.goto(f"{server.url}/#/run/{run}")
        await_step(page, above=20)
        until(page, lambda: drawn_steps(page, "norm"))  # the chart library has come whole
        page.evaluate("window.sameDocument = true")
        server.kill()
        banner = page.get_by_role("status")
        expect(banner).to_have_text(
            re.compile(r"^Connection lost.*; reconnecting (now|in \d+ s); what you see is [\d.]+ (s|min .*) old")
        )
        at_the_kill = shown_step(page)
        expect(tile(page, "Last data")).to_have_text(re.compile(r"^\d+ s ago$"))
        with ServerProcess(tmp_path, "--port", str(urlsplit(server.url).port)) as another:
            await_step(page, above=at_the_kill + 50, seconds=30)
            expect(banner).to_be_hidden()
            expect(page.get_by_text("live", exact=True)).to_be_visible()
            trainer.end()
            steps = len(another.raw_series(run, ["loss"])["step"])
            for panel in ("loss", "norm", "ratio"):
                await_steps(page, panel, steps)
            assert page.evaluate("window.sameDocument") is True
            page.close()


def test_what_is_not_there_is_said(server: ServerProcess, page: Page, complaints: Complaints) -> None:
    page.goto(server.url)
    expect(page.get_by_role("heading", name="Waiting for the first run")).to_be_visible()
    usage = page.locator("code").inner_text()
    assert "import gradwatch" in usage and "monitor.clip(loss)" in usage
    complaints.expect(r"404 .*/api/runs/nowhere\)$", most=1)
    page.goto(f"{server.url}/#/run/nowhere")
    expect(page.get_by_role("heading", name="There is no such run")).to_be_visible()
    expect(page.get_by_role("status")).to_be_hidden()
    page.get_by_role("link", name="All runs").click()
    expect(page.get_by_role("heading", name="Waiting for the first run")).to_be_visible()
