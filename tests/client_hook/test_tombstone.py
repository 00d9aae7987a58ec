"""Tombstones tell truly what stood in their place."""

from __future__ import annotations

import numpy as np
from gradwatch import frames
from gradwatch.frames import Frame, Kind
from gradwatch.tombstone import in_place_of

from tests.server.stream import Writer


def told(data: bytes) -> tuple[Frame, dict[str, object]]:
    before = frames.decode(data)
    found = frames.decode(in_place_of(before, "why"))
    assert found.kind is Kind.DROPPED
    assert (found.header["writer"], found.header["seq"]) == (before.header["writer"], before.header["seq"])
    return found, {name: found.header[name] for name in ("first_step", "last_step", "rows", "reason")}


def test_of_every_kind_that_can_be_let_go() -> None:
    writer = Writer()
    writer.opening()
    for data, expected in (
        (writer.steps([7, 8, 11]), (7, 11, 3, "why (steps)")),
        (writer.samples("weight_norm", [(0, 9, 1.0), (1, 4, 1.0)]), (4, 9, 2, "why (samples)")),
        (writer.histograms([(0, 5, np.ones(3)), (1, 5, np.ones(2))]), (5, 5, 2, "why (histogram)")),
        (writer.scalars([("accuracy", 3, 0.5), ("other", 2, 0.1)]), (2, 3, 2, "why (scalars)")),
        (writer.landscape("surface points", 1, 40, {"loss": [1.0, 2.0]}), (40, 40, 2, "why (landscape)")),
        (frames.encode(Kind.STEPS, {"writer": "w", "seq": 4}), (None, None, 0, "why (steps)")),
    ):
        _, said = told(data)
        assert tuple(said.values()) == expected


def test_it_is_small() -> None:
    writer = Writer()
    writer.opening()
    assert told(writer.steps(range(10**6, 10**6 + 60)))[0].size < 200
