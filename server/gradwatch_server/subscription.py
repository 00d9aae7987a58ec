"""What a viewer asks of the live socket, and which steps that means."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gradwatch import frames
from gradwatch.frames import FrameError

from .store.queries import MOST_COLUMNS, choose_width
from .store.views import View


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscribe message. ``first`` and ``last`` None: from the beginning, up to the newest step."""

    request: int
    run: str | None
    first: int | None
    last: int | None
    span: int | None
    columns: int
    layers: bool
    attempt: int | None
    rank: int | None

    @classmethod
    def parse(cls, text: str | None) -> Subscription:
        """A subscription from its JSON. Raises FrameError with a sentence."""
        try:
            said = json.loads(text or "")
        except (ValueError, RecursionError) as error:
            raise FrameError("header", "a subscription is a JSON text message") from error
        if not isinstance(said, dict) or said.get("type") != "subscribe":
            raise FrameError("header", 'a subscription is a JSON object with "type": "subscribe"')
        found = {name: _count(said, name) for name in ("first", "last", "span", "attempt", "rank")}
        run = said.get("run")
        columns = _count(said, "columns")
        wanted = cls(
            request=_count(said, "request") or 0,
            run=None if run is None else frames.check_text("'run'", run, 64),
            columns=min(max(1, 1000 if columns is None else columns), MOST_COLUMNS),
            layers=_flag(said, "layers"),
            **(found if _flag(said, "follow") else found | {"span": None}),
        )
        if wanted.first is not None and wanted.last is not None and wanted.first > wanted.last:
            raise FrameError("field", "'first' must not be above 'last'")
        if wanted.span == 0:
            raise FrameError("field", "'span' must be at least 1")
        return wanted

    def range_of(self, view: View, layers: int) -> tuple[int, int, int]:
        """First step, last step and column width; first > last where there is nothing to show yet."""
        if view.first_step is None or view.last_step is None:
            return 0, -1, 1
        if self.span is not None:
            first = max(view.first_step, view.last_step - self.span + 1)
            # By the span and not by where it lies now, so that the width stays the same while it moves.
            worst = (
                (1, self.span)
                if self.span <= self.columns
                else (1, self.span + choose_width(1, self.span, self.columns, layers))
            )
            return first, view.last_step, choose_width(*worst, self.columns, layers)
        first = view.first_step if self.first is None else self.first
        last = max(first, view.last_step) if self.last is None else self.last
        return first, last, choose_width(first, last, self.columns, layers, view.thinned_to)


def _count(said: dict[str, Any], name: str) -> int | None:
    return None if said.get(name) is None else frames.check_count(f"'{name}'", said[name])


def _flag(said: dict[str, Any], name: str) -> bool:
    value = said.get(name, False)
    if not isinstance(value, bool):
        raise FrameError("field", f"'{name}' must be true or false")
    return value
