"""What a person reads off a page: words by their place, and what the charts have drawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic
from typing import Any

from playwright.sync_api import Locator, Page

PANELS = ("loss", "norm", "ratio", "lane", "heatmap", "other")
DRAWN_STEPS = "name => document.querySelector(`.panel-${name} .plot`).data?.at(-1)?.x ?? []"
PAINTED = """name => {
  const canvas = document.querySelector(`.panel-${name} .underlay`);
  const bytes = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set();
  for (let at = 0; at < bytes.length; at += 4) {
    const [red, green, blue, alpha] = bytes.subarray(at, at + 4);
    const grey = Math.max(red, green, blue) - Math.min(red, green, blue) < 40; // lines, crosses, their soft edges
    if (alpha && !grey) seen.add((red << 16) | (green << 8) | blue);
  }
  return seen.size;
}"""


def until(page: Page, read: Callable[[], Any], holds: Callable[[Any], object] = bool, seconds: float = 15) -> Any:
    """What ``read`` gives, as soon as ``holds`` is true of it."""
    end = monotonic() + seconds
    while True:
        found = read()
        if holds(found):
            return found
        assert monotonic() < end, f"after {seconds} s: {str(found)[:500]}"
        page.wait_for_timeout(40)


def region(page: Page, name: str) -> Locator:
    """A part of the page by its accessible name."""
    return page.get_by_role("region", name=name, exact=True)


def tile(page: Page, label: str) -> Locator:
    """A value of the status bar."""
    term = page.get_by_role("term").filter(has_text=re.compile(f"^{re.escape(label)}"))
    return region(page, "Status").locator("div").filter(has=term).last.locator(".tile-value")


def shown_step(page: Page) -> int:
    """The step that the status bar names, or -1."""
    text = tile(page, "Step").inner_text().replace(",", "")
    return int(text) if text.isdigit() else -1


def await_step(page: Page, above: int, seconds: float = 15) -> int:
    """The step that the status bar names, as soon as it is greater than ``above``."""
    step: int = until(page, lambda: shown_step(page), lambda step: step > above, seconds)
    return step


def shown_range(page: Page) -> tuple[int, int]:
    """First and last step of the charts, as the toolbar says them."""
    text = page.locator(".toolbar .range").inner_text().replace(",", "")
    first, *rest = [int(number) for number in re.findall(r"\d+", text)]
    return first, rest[0] if rest else first


def drawn_steps(page: Page, panel: str) -> list[float]:
    """Where the line of a chart has its points."""
    found: list[float] = page.evaluate(DRAWN_STEPS, panel)
    return found


def await_steps(page: Page, panel: str, steps: int) -> None:
    """Wait until the line of a chart has a point for each of the first ``steps`` steps, and no other."""
    until(page, lambda: drawn_steps(page, panel), lambda found: found == list(range(steps)))


def await_painted(page: Page, panel: str, colours: int) -> None:
    """Wait until a panel's canvas shows at least so many colours that are not grey."""
    until(page, lambda: page.evaluate(PAINTED, panel), lambda found: found >= colours)


def drag_across(page: Page, panel: str, start: float, end: float) -> None:
    """Marks a range on a chart with the mouse; 0 is the plot's left edge and 1 its right."""
    plot = page.locator(f".panel-{panel} .nsewdrag").bounding_box()
    assert plot is not None
    middle = plot["y"] + plot["height"] / 2
    page.mouse.move(plot["x"] + start * plot["width"], middle)
    page.mouse.down()
    page.mouse.move(plot["x"] + end * plot["width"], middle, steps=6)
    page.mouse.up()
