"""What the page shows of a landscape, and what it asks for: the server's answers are given, the page is real."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.processes import ServerProcess
from tests.server.stream import Socket, Writer

from .conftest import Complaints, OpenPage
from .reading import await_painted, region, until

STEPS = 400
EVERY = 20  # steps between two probes
ALPHA = [-0.5, -0.25, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4]
CRITICAL = 2.0
SIZE, LEVELS = 33, 17
NAN, INFINITE, HOLE = (28, 2), (30, 2), (4, 30)  # (i, j)
SIZES = [(1440, 900), (390, 844)]
ABOUT = {"mode": "eval", "dtype": "float32", "batches": 3, "buffers": "frozen at the anchor", "hooks_left_out": 1}
PLOTTED = "name => document.querySelector(`.${name} .plot`).data ?? []"
WEBGL = "Boolean(document.createElement('canvas').getContext('webgl2'))"
NO_WEBGL = """HTMLCanvasElement.prototype.getContext = new Proxy(HTMLCanvasElement.prototype.getContext, {
  apply: (target, self, [kind, ...rest]) => (/webgl/.test(kind) ? null : Reflect.apply(target, self, [kind, ...rest])),
});"""


def probe(number: int) -> dict[str, Any]:
    """A parabola that falls to alpha 1 and rises to CRITICAL; number 6 never rises, number 7 is not finite at 4."""
    base = 3 - 0.05 * number
    loss: list[Any] = [base + 0.01 * alpha * (alpha - CRITICAL) for alpha in ALPHA]
    if number == 7:
        loss[-1] = "Infinity"
    if number == 3:
        loss[-2] = None
    beyond = number == 6
    return {
        "probe": number, "step": number * EVERY, "loss": loss, "base": base, "taken": loss[ALPHA.index(1)],
        "best_alpha": 1, "critical_low": 64.0 if beyond else CRITICAL - 0.1,
        "critical_high": "Infinity" if beyond else CRITICAL + 0.1,
        "sharpness": None if beyond else 100.0, "stability_threshold": 380.0, "learning_rate": 0.01,
        "update_norm": 0.5, "done": True,
    }  # fmt: skip


def surface_loss(u: float, v: float) -> float:
    return 2 + u * u + 4 * v * v


def surface(number: int = 50) -> dict[str, Any]:
    axis = [-2 + 4 * at / (SIZE - 1) for at in range(SIZE)]
    loss: list[list[Any]] = [
        [None if i % 2 or j % 2 else surface_loss(axis[i], axis[j]) for i in range(SIZE)] for j in range(SIZE)
    ]
    for (i, j), value in ((NAN, "NaN"), (INFINITE, "Infinity"), (HOLE, None)):
        loss[j][i] = value
    steps = [280, 300, 320, 340]
    path = {"step": steps, "u": [-1, 0, 0.5, 1], "v": [0.2, 0, 0.1, 0.3], "off": [0.1, 0, 0.1, 0.2]}
    about = {**ABOUT, "plane": "update", "normalisation": "filter", "seed": 0, "size": SIZE, "levels": LEVELS}
    return {
        "probe": number, "step": 300, "about": about, "u": axis, "v": axis, "loss": loss, "computed": LEVELS**2 - 1,
        "nonfinite": 2, "unit_u": 0.5, "unit_v": 2.0, "base": 2.0, "seconds": 3.0,
        "path": {**path, "loss": [3.2, 2.0, "NaN", 3.4]},
    }  # fmt: skip


def landscape() -> dict[str, Any]:
    probes = [probe(number) for number in range(STEPS // EVERY)]
    outcomes = ["helped", "helped", "hurt", "inconclusive"]
    events = [
        {"step": 10 + 40 * at, "difference": sign * 0.02, "standard_error": 0.005, "batches": 3, "outcome": outcome}
        for at, (outcome, sign) in enumerate(zip(outcomes, (1, 1, -1, 0.1), strict=True))
    ]
    counts = {outcome: outcomes.count(outcome) for outcome in set(outcomes)}
    overall = {"outcome": "inconclusive", "count": 4, "mean": 0.0055, "standard_error": 0.009, **counts}
    about = {**ABOUT, "rule": "SGD, 2 / lr"}
    extra = [{"alpha": 1.9, "loss": probes[-1]["base"] - 0.0019}]
    line = {
        "probe": probes[-1]["probe"], "step": probes[-1]["step"], "about": about,
        "alpha": ALPHA + [point["alpha"] for point in extra],
        "loss": probes[-1]["loss"] + [point["loss"] for point in extra],
    }  # fmt: skip
    entries = [{"probe": 50, "step": 300, "plane": "update", "levels": LEVELS, "computed": 288, "request": ""},
               {"probe": 40, "step": 100, "plane": "random", "levels": 9, "computed": 81, "request": ""}]  # fmt: skip
    turn = [2 * math.pi * at / 40 for at in range(31)]
    trajectory = {
        "step": [10 * at for at in range(31)], "x": [5 * math.cos(angle) for angle in turn],
        "y": [2 * math.sin(angle) for angle in turn], "off": [0.1 * at for at in range(31)],
        "loss": ["NaN", *(3 - 0.05 * at for at in range(30))], "explained": [0.9, 0.08], "random_walk": [0.608, 0.152],
        "snapshots": 31, "every": 1, "about": {**ABOUT, "seed": 0, "parameters": 5000, "k": 256},
    }  # fmt: skip
    return {
        "tape": {"alpha": ALPHA, "every": 1, "count": len(probes), "probes": probes}, "line": line,
        "verdict": {"unsupported": None, "events": events, "overall": overall}, "surfaces": entries,
        "surface": surface(), "trajectory": trajectory, "cost": {"seconds": 12.0, "share": 0.0093},
    }  # fmt: skip


EMPTY: dict[str, Any] = {
    "tape": {"alpha": ALPHA, "every": 1, "count": 0, "probes": []}, "line": None,
    "verdict": {"unsupported": None, "events": [], "overall": None}, "surfaces": [], "surface": None,
    "trajectory": None, "cost": {"seconds": None, "share": None},
}  # fmt: skip


@dataclass
class Probed:
    """A run that goes on, and the landscape that pages are told of it."""

    server: ServerProcess
    run: str
    landscape: dict[str, Any] = field(default_factory=landscape)
    control: bool = True
    refused: str = ""
    asked: list[Any] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def show(self, page: Page) -> Locator:
        """Opens the run on ``page``; its landscape as it is shown."""
        page.route(re.compile(rf"/api/runs/{self.run}$"), self._tell_run)
        page.route(re.compile(rf"/api/runs/{self.run}/landscape\?"), self._tell_landscape)
        page.route(re.compile(rf"/api/runs/{self.run}/control$"), self._take)
        page.goto(f"{self.server.url}/#/run/{self.run}")
        shown = region(page, "Loss landscape")
        expect(shown).to_be_visible()
        return shown

    def _tell_run(self, route: Route) -> None:
        answer = route.fetch()
        route.fulfill(json={**answer.json(), "control": self.control})

    def _tell_landscape(self, route: Route) -> None:
        self.fetched.append(route.request.url)
        route.fulfill(json=self.landscape)

    def _take(self, route: Route) -> None:
        self.asked.append(route.request.post_data_json)
        if self.refused:
            route.fulfill(status=409, json={"detail": self.refused})
        else:
            route.fulfill(status=202, json={"id": "c0ffee"})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all tests here; each brings a run of its own."""
    with ServerProcess(tmp_path_factory.mktemp("shared")) as server:
        yield server


@pytest.fixture
def probed(shared: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Probed]:
    writer = Writer(run=request.node.name, control=True)
    with Socket(shared.url, "/api/ingest") as socket:
        socket.store(writer, writer.opening() + writer.steps(range(STEPS), loss=1.0, total_norm=1.0))
        yield Probed(shared, writer.run)


def plotted(page: Page, name: str) -> list[dict[str, Any]]:
    """The traces of a picture, as soon as there are some."""
    found: list[dict[str, Any]] = until(page, lambda: page.evaluate(PLOTTED, name))
    return found


def nothing_sticks_out(page: Page) -> None:
    width, inside = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width <= inside


@pytest.mark.parametrize("size", SIZES)
def test_the_tape_and_its_probes_are_drawn_as_told(probed: Probed, open_page: OpenPage, size: tuple[int, int]) -> None:
    page = open_page(*size)
    shown = probed.show(page)
    await_painted(page, "tape", 6)
    steps = [number * EVERY for number in range(STEPS // EVERY)]
    critical = [None if step == 6 * EVERY else CRITICAL for step in steps]
    traces = plotted(page, "panel-tape")
    assert any(trace["x"] == steps and trace["y"] == critical for trace in traces), "the critical step"
    assert any(trace["x"] == [6 * EVERY] for trace in traces), "the mark of a critical step beyond the tape"
    assert any(trace["x"] == steps and set(trace["y"]) == {1} for trace in traces), "the best alpha"
    caption = shown.locator(".tape-caption")
    expect(caption).to_contain_text(
        "20 probes · 3 held-out batches · eval mode · float32 · buffers frozen at the anchor"
    )
    expect(caption).to_contain_text("0.4 % not computed · 1 not finite · probing so far 12 s, 0.9 % of the time")
    curve = region(page, "Along the update")
    expect(curve.locator(".caption")).to_contain_text("Probe at step 380 · critical α 2.00")
    assert any(1.9 in trace["x"] for trace in plotted(page, "figure-line")), "the newest probe has all its points"
    nothing_sticks_out(page)


def test_the_crosshair_reads_one_probe(probed: Probed, page: Page) -> None:
    shown = probed.show(page)
    await_painted(page, "tape", 6)
    page.goto(f"{page.url}?step={7 * EVERY}")
    readings = shown.locator(".panel-tape .readings")
    expect(readings).to_contain_text(re.compile(r"probe at\s*140\s*before\s*2.65000\s*Δ taken\s*−0.0100"))
    expect(readings).to_contain_text(re.compile(r"critical α\s*2.00"))
    expect(region(page, "Along the update").locator(".caption")).to_contain_text("Probe at step 140")
    page.goto(page.url.replace("140", str(6 * EVERY)))
    expect(readings).to_contain_text(re.compile(r"critical α\s*> 64.0"))


@pytest.mark.parametrize("size", SIZES)
def test_gauge_verdict_and_map_say_it_in_words(probed: Probed, open_page: OpenPage, size: tuple[int, int]) -> None:
    page = open_page(*size)
    probed.show(page)
    gauge = region(page, "Sharpness gauge")
    expect(gauge).to_contain_text("Your step is 0.50 × the critical one")
    expect(gauge).to_contain_text("Step 380: sharpness 100, stable below 380.")
    expect(gauge.locator(".caption")).to_contain_text("threshold: SGD, 2 / lr · found in 19 of 20 probes")
    expect(gauge.locator(".gauge-lead")).to_have_attribute("data-zone", "near")
    verdict = region(page, "Did this clip help?")
    expect(verdict).to_contain_text("Inconclusive")
    expect(verdict).to_contain_text("0.00550 ± 0.0090 on average: too close to tell")
    expect(verdict).to_contain_text("Of 4 probed clips 2 helped, 1 hurt, 1 inconclusive.")
    dots = [trace for trace in plotted(page, "figure-verdict") if trace.get("error_y")]
    assert sorted(len(trace["x"]) for trace in dots) == [1, 1, 2]
    trajectory = region(page, "Trajectory map")
    expect(trajectory).to_contain_text("98 % explained; pure noise would explain 76 %")
    expect(trajectory).to_contain_text("1 loss not known")
    expect(trajectory.locator(".caption").first).to_contain_text("sketch of 256 numbers for 5,000 parameters")
    field = trajectory.locator(".figure-field").first
    field.focus()
    page.keyboard.press("ArrowLeft")
    expect(trajectory.locator(".figure-readout").first).to_have_text("step 300: loss 1.55000, 3.00 off the plane")
    nothing_sticks_out(page)


@pytest.mark.parametrize("size", SIZES)
def test_the_surface_shows_what_was_computed_and_nothing_else(
    probed: Probed, open_page: OpenPage, size: tuple[int, int]
) -> None:
    page = open_page(*size, color_scheme="dark")
    probed.show(page)
    picture = region(page, "Loss surface")
    caption = picture.locator(".caption")
    expect(caption).to_contain_text("Surface at step 300; the model is now at step 399 · plane: update × gradient")
    expect(caption).to_contain_text("filter-normalised · seed 0 · buffers frozen at the anchor · 1 hook left out")
    expect(caption).to_contain_text("288 of 289 points · 0 % capped · 0.3 % missing · 2 not finite · this surface 3 s")
    expect(caption).to_contain_text("a slice, not the landscape")
    expect(picture.locator(".figure-legend")).to_contain_text(re.compile(r"1 not computed\s*2 non-finite"))
    contour = plotted(page, "figure-surface")[0]
    assert contour["type"] == "contour" and contour["connectgaps"] is False
    told = probed.landscape["surface"]
    for j, row in enumerate(contour["z"]):
        for i, value in enumerate(row):
            if (2 * i, 2 * j) in (NAN, INFINITE, HOLE):
                assert value is None
            else:
                assert value == pytest.approx(math.log10(told["loss"][2 * j][2 * i]))
    picture.get_by_role("button", name="Gradient").click()
    expect(picture.get_by_role("heading", name="regions prone to instability")).to_be_visible()
    expected = math.log10(math.hypot(2 * 1 / 0.5, 8 * 1 / 2.0))  # at u = v = 1, the twelfth of seventeen
    until(
        page, lambda: plotted(page, "figure-surface")[0]["z"][12][12], lambda z: z == pytest.approx(expected, abs=2e-3)
    )
    page.reload()
    expect(picture.get_by_role("heading", name="regions prone to instability")).to_be_visible()
    picture.get_by_role("button", name="Loss").click()
    field = picture.locator(".figure-field")
    field.focus()
    page.keyboard.press("ArrowRight")
    expect(picture.locator(".figure-readout")).to_contain_text("u 0, v 0: loss 2.00000")
    nothing_sticks_out(page)


def test_another_surface_is_fetched_when_it_is_chosen(probed: Probed, page: Page) -> None:
    probed.show(page)
    page.get_by_role("combobox", name="Surface to draw").select_option("step 100, random")
    until(page, lambda: [url for url in probed.fetched if url.endswith("&surface=40")])


def test_a_surface_without_a_point_gets_its_room_with_the_first(probed: Probed, page: Page) -> None:
    whole = probed.landscape["surface"]["loss"]
    probed.landscape["surface"]["loss"] = [[None] * SIZE for _ in range(SIZE)]
    probed.show(page)
    field = region(page, "Loss surface").locator(".figure-field")
    expect(field).to_be_hidden()
    probed.landscape["surface"]["loss"] = whole
    choose(page, "40")
    expect(field).to_be_visible()
    assert plotted(page, "figure-surface")[0]["type"] == "contour"


def test_three_dimensions_are_drawn_or_said_to_be_missing(probed: Probed, page: Page) -> None:
    probed.show(page)
    picture = region(page, "Loss surface")
    until(page, lambda: plotted(page, "figure-surface"))
    picture.get_by_role("button", name="3-D").click()
    if page.evaluate(WEBGL):
        kinds = "document.querySelector('.figure-surface .plot-space').data?.map(({type}) => type)"
        assert until(page, lambda: page.evaluate(kinds), seconds=30) == ["surface", "scatter3d"]
        expect(picture.locator(".plot-space canvas").first).to_be_attached()
        known = "document.querySelector('.figure-surface .plot-space').data[1].x"
        assert page.evaluate(known) == [-1, 0, 1], "the path at its true losses, where they are known"
        picture.get_by_role("button", name="Contour").click()
        expect(picture.locator(".plot-space canvas")).to_have_count(0)
    else:
        expect(picture.get_by_role("status").filter(has_text="no WebGL")).to_be_visible()


def test_without_webgl_the_contour_stays_and_says_why(probed: Probed, page: Page) -> None:
    page.add_init_script(NO_WEBGL)
    probed.show(page)
    picture = region(page, "Loss surface")
    picture.get_by_role("button", name="3-D").click()
    expect(picture.get_by_text("This browser has no WebGL")).to_be_visible()
    assert plotted(page, "figure-surface")[0]["type"] == "contour"


@pytest.mark.parametrize("size", SIZES)
def test_a_surface_is_asked_for_and_followed(probed: Probed, open_page: OpenPage, size: tuple[int, int]) -> None:
    page = open_page(*size)
    probed.show(page)
    form = page.get_by_role("form", name="Ask for a surface")
    form.get_by_label("Plane").select_option("random")
    form.get_by_label("Detail").select_option("9 × 9")
    form.get_by_label("Seed").fill("7")
    button = form.get_by_role("button", name="Compute a surface")
    box = button.bounding_box()
    assert box and box["height"] >= (44 if size[0] < 500 else 24)
    button.click()
    expect(form.get_by_role("status")).to_have_text(re.compile("^Asked"))
    assert probed.asked == [{"command": "probe_landscape", "plane": "random", "levels": 9, "seed": 7}]
    expect(button).to_be_disabled()
    entry = {"probe": 60, "step": 390, "plane": "random", "levels": 9, "computed": 12, "request": "c0ffee"}
    probed.landscape["surfaces"].insert(0, entry)
    choose(page, "40")
    expect(form.get_by_role("status")).to_have_text("12 of 81 points")
    expect(form.get_by_role("progressbar")).to_be_visible()
    entry["computed"] = 81
    choose(page, "")
    expect(form.get_by_role("status")).to_have_text("")
    expect(button).to_be_enabled()


def choose(page: Page, surface: str) -> None:
    """Another surface, so that the page fetches again."""
    page.get_by_role("combobox", name="Surface to draw").select_option(surface)


def test_a_refusal_is_shown_in_the_servers_words(probed: Probed, page: Page, complaints: Complaints) -> None:
    complaints.expect(r"409 .*/control\)$", most=1)
    probed.refused = "The training is not connected."
    probed.show(page)
    form = page.get_by_role("form", name="Ask for a surface")
    form.get_by_role("button", name="Compute a surface").click()
    expect(form.get_by_role("status")).to_have_text(probed.refused)
    expect(form.get_by_role("button", name="Compute a surface")).to_be_enabled()


def test_a_run_without_control_says_so(probed: Probed, page: Page) -> None:
    probed.control = False
    probed.show(page)
    form = page.get_by_role("form", name="Ask for a surface")
    expect(form.get_by_role("button", name="Compute a surface")).to_be_disabled()
    expect(form.get_by_role("status")).to_have_text("This run takes no requests: watch it with control=True.")


def test_an_optimizer_without_a_closed_form_and_a_run_without_probes(probed: Probed, page: Page) -> None:
    reason = "Muon has no closed form for the raw step."
    probed.landscape = {**EMPTY, "verdict": {"unsupported": reason, "events": [], "overall": None}}
    probed.show(page)
    expect(region(page, "Did this clip help?")).to_contain_text(f"Not supported: {reason}")
    probed.landscape = EMPTY
    page.reload()
    shown = region(page, "Loss landscape")
    expect(shown.locator("code")).to_have_text("gradwatch.watch(..., probe=lambda model: loss on a held-out batch)")
    expect(shown.locator(".landscape-body")).to_be_hidden()
