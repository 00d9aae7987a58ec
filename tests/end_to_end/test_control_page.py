"""The card by which a person asks a real training for something, in a real browser."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.end_to_end.conftest import OpenPage
from tests.processes import Process, ServerProcess, clean_environment

SCRIPT = Path(__file__).with_name("commanded_ranks.py")
ALONE = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def training(server: ServerProcess, tmp_path: Path) -> Iterator[Process]:
    environment = clean_environment(tmp_path, **ALONE)
    command = [sys.executable, str(SCRIPT), str(tmp_path), "all"]
    with Process(command, environment, tmp_path / "training.log") as process:
        yield process


def card(page: Page) -> Locator:
    return page.get_by_role("region", name="Ask the training")


def test_a_person_sets_a_threshold_asks_for_a_checkpoint_and_stops_the_training(
    server: ServerProcess, training: Process, open_page: OpenPage
) -> None:
    found = server.await_json("/api/runs", lambda found: found["runs"] and (found["runs"][0]["last_step"] or 0) > 5)
    run = found["runs"][0]["id"]
    page = open_page()
    page.goto(f"{server.url}/#/run/{run}")
    ask, words = card(page), card(page).get_by_role("status")
    set_button, field = ask.get_by_role("button", name="Set"), ask.get_by_label("Threshold")
    expect(set_button).to_be_disabled()
    field.fill("-1")
    expect(set_button).to_be_disabled()
    field.fill("0.25")
    field.press("Enter")
    expect(words).to_contain_text("set_threshold: from 0.001 to 0.25; asked for by 127.0.0.1")
    ask.get_by_role("button", name="Save a checkpoint").click()
    expect(words).to_contain_text("checkpoint: on_checkpoint was called")
    ask.get_by_role("button", name="Stop the training").click()
    expect(ask.get_by_role("button", name="Stop it")).to_be_focused()
    ask.get_by_role("button", name="Let it run").click()
    expect(ask.get_by_role("button", name="Stop the training")).to_be_focused()
    assert training.popen.poll() is None
    ask.get_by_role("button", name="Stop the training").click()
    ask.get_by_role("button", name="Stop it").click()
    expect(words).to_contain_text("stop: monitor.should_stop is true from here on")
    expect(page.get_by_role("region", name="Status")).to_contain_text("stopped as asked")
    expect(set_button).to_be_hidden()
    assert training.wait() == 0, training.output
    asked = [event["name"] for event in server.get(f"/api/runs/{run}/events?kind=control")["events"]]
    assert sorted(asked) == ["checkpoint", "control", "control", "control", "set_threshold", "stop"]


def test_the_card_fits_on_any_screen(server: ServerProcess, training: Process, open_page: OpenPage) -> None:
    found = server.await_json("/api/runs", lambda found: found["runs"] and (found["runs"][0]["last_step"] or 0) > 5)
    for width in (1440, 390):
        page = open_page(width, 900)
        page.goto(f"{server.url}/#/run/{found['runs'][0]['id']}")
        card(page).get_by_role("button", name="Stop the training").click()
        for element in card(page).locator("button:visible, input, p:visible").all():
            box, around = element.bounding_box(), card(page).bounding_box()
            assert box is not None and around is not None
            assert box["x"] >= around["x"] and box["x"] + box["width"] <= around["x"] + around["width"]
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.close()
