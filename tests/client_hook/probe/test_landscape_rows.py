"""Rows of probes and the frames that hold them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from gradwatch import frames
from gradwatch.frames import Kind
from gradwatch.probe.landscape_rows import LandscapeRows, What

SKETCH: dict[str, Sequence[Any]] = {"sketch": [[1.5, -2.0, 0.0]]}
ROWS = [
    LandscapeRows(1, "line", "points", 7, {"alpha": [0, 1], "loss": [math.nan, 2.5], "seconds": [0.1, 0.2]}),
    LandscapeRows(2, "verdict", "points", 8, {"base": [1.0], "clipped": [0.5], "raw": [math.inf], "seconds": [0]}),
    LandscapeRows(3, "verdict", "unsupported", 9, {}, {"reason": "Muon"}),
    LandscapeRows(4, "surface", "points", 9, {"i": [32], "j": [0], "loss": [-0.0], "seconds": [1e-3]}),
    LandscapeRows(5, "trajectory", "points", 4, {"step": [4], "loss": [1e300], "norm": [2], "seconds": [0], **SKETCH}),
]


@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: f"{rows.what} {rows.part}")
def test_a_frame_gives_back_every_number(rows: LandscapeRows) -> None:
    header, body = rows.frame()
    decoded = frames.decode(frames.encode(Kind.LANDSCAPE, header, body))
    schema = frames.columns_from_json(decoded.header["columns"])
    parts = frames.split(decoded.body, schema, decoded.header["rows"])
    assert [column.name for column in schema] == list(rows.values)
    assert (decoded.header["probe"], decoded.header["what"], decoded.header["part"]) == (
        rows.probe,
        rows.what,
        rows.part,
    )
    assert decoded.header["step"] == rows.step and decoded.header["about"] == rows.about
    for column in schema:
        found = np.frombuffer(parts[column.name], f"<{column.dtype}")
        expected = np.array(rows.values[column.name]).reshape(-1).astype(column.dtype)
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("what", "part"), [("line", "summary"), ("surface", "plane"), ("surface", "path")])
def test_numbers_that_are_measured_are_never_rounded(what: What, part: str) -> None:
    columns = LandscapeRows(0, what, part, 0).columns
    assert {column.dtype for column in columns if column.name != "step"} == {"f8"}
