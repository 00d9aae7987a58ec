"""What the page shows of steps left out, of thresholds that limit no total norm, and of the hook's notes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from gradwatch import frames
from playwright.sync_api import Page, expect

from tests.processes import ServerProcess
from tests.server.stream import LATER, Socket, Writer

from .conftest import OpenPage
from .reading import await_painted, region, tile, until

STEPS = 400
SCALER, HOOK, NAN = [0, 1, 2, 250], [100, 101, 300], 350
WIRING = "clip() came after optimizer.step(): call it before"
LANE = "Clipped steps, spikes, non-finite steps, restarts and marks"
DASHED = (
    "() => document.querySelector('.panel-norm .plot').data?.map(({line}) => (line?.dash ?? 'solid') !== 'solid') ?? []"
)


def told(server: ServerProcess, threshold_of: str, *, left_out: bool) -> Writer:
    """A finished run, sent as a hook sends it."""
    writer = Writer(run=threshold_of, clip={"strategy": "Odd", "alpha": 0.97, "threshold_of": threshold_of})
    writer.series |= LATER
    steps = np.arange(STEPS)
    total, skipped = np.where(steps % 2, 0.4, 0.6), np.zeros(STEPS)
    if left_out:
        skipped[SCALER], skipped[HOOK] = 2, 1
        total[SCALER], total[NAN] = np.inf, np.nan
    data = writer.opening() + writer.steps(
        steps,
        loss=2.0,
        total_norm=total,
        clip_coefficient=0.9,
        threshold=0.5,
        skipped=skipped,
        clip_cosine=np.where(left_out, 0.5, 1.0),
        step_seconds=0.1,
        sample_seconds=0.002,
    )
    if left_out:
        data += writer.event("wiring", WIRING, step=7)
    with Socket(server.url, "/api/ingest") as socket:
        socket.store(writer, data + writer.finish())
    return writer


def address(server: ServerProcess, writer: Writer) -> str:
    return f"{server.url}/#/run/{frames.run_id(writer.said['project'], writer.said['run'])}"


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_steps_left_out_and_a_limit_on_elements(
    server: ServerProcess, open_page: OpenPage, size: tuple[int, int]
) -> None:
    page = open_page(*size)
    page.goto(address(server, told(server, "element", left_out=True)))
    lane = region(page, LANE)
    expect(lane).to_contain_text(re.compile(rf"hook skips\s*■ {len(HOOK)}"))
    expect(lane).to_contain_text(re.compile(rf"scale skips\s*○ {len(SCALER)}"))
    expect(lane.locator(".ytick")).to_have_count(7, timeout=15_000)
    expect(tile(page, "Non-finite")).to_have_text("✕ 1")
    alerts = region(page, "Alerts").get_by_role("listitem")
    expect(alerts).to_have_count(1)
    expect(alerts).to_contain_text(f"step {NAN}")
    notes = region(page, "Notes of the hook")
    expect(notes).to_contain_text(WIRING)
    facts = region(page, "Run")
    expect(facts).to_contain_text("Odd alpha=0.97")
    expect(facts).to_contain_text(re.compile(r"Threshold\s*0.5 per element"))
    expect(facts).to_contain_text(re.compile(r"Measuring beside the norms\s*2.0 % of step time"))
    await_painted(page, "lane", 3)
    assert not any(until(page, lambda: page.evaluate(DASHED))), "no threshold beside the total norm"
    assert "clip cosine" in page.get_by_role("combobox", name="Series to draw").inner_text()
    width, inside = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width <= inside
    notes.get_by_role("button", name="Wiring").click()
    expect(page.locator(".toolbar .detail")).to_have_text("every step · at 7")
    expect(lane).to_contain_text(WIRING)


def test_a_limit_on_the_total_norm_is_drawn_beside_it(server: ServerProcess, page: Page) -> None:
    page.goto(address(server, told(server, "total norm", left_out=False)))
    assert any(until(page, lambda: page.evaluate(DASHED)))
    expect(region(page, LANE).locator(".ytick")).to_have_count(5, timeout=15_000)
    expect(region(page, "Notes of the hook")).to_be_hidden()
    expect(region(page, "Run")).not_to_contain_text("per ")
    assert "clip cosine" not in page.get_by_role("combobox", name="Series to draw").inner_text()
