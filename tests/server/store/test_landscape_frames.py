"""What is taken of landscape frames, what is refused, and what they leave alone."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from gradwatch import frames
from gradwatch.frames import FrameError, Kind
from gradwatch_server.changes import RunChange
from gradwatch_server.store import landscape_frames, tables
from gradwatch_server.store.landscape_frames import ProbeRows, check_landscape, stored_kind

from ..stream import LANDSCAPE_COLUMNS, Writer
from .opened import keep, opened, rows

NAN, INF = float("nan"), float("inf")
FINE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "line points": ({"alpha": [-0.5, 4], "loss": [NAN, -INF], "seconds": 0.5}, {"mode": "eval", "batches": 1}),
    "line summary": ({"base": NAN, "critical_low": 1.5, "critical_high": INF, "stability_threshold": NAN}, {}),
    "verdict points": ({"base": [1, 2], "clipped": [INF, 1], "raw": [NAN, 1]}, {}),
    "verdict unsupported": ({}, {"reason": "the optimizer is Muon"}),
    "surface plane": ({"low_u": -1, "high_u": 1, "low_v": 0, "high_v": 1e9, "base": NAN}, {"size": 33, "seed": -5}),
    "surface points": ({"i": [0, 32], "j": 32, "loss": [INF, 1]}, {"size": 33, "request": ""}),
    "surface path": ({"step": [4, 2], "u": NAN, "v": INF, "off": 0, "loss": NAN}, {}),
    "trajectory points": ({"step": [7, 3], "loss": NAN, "norm": INF, "sketch": [[1, NAN], [2, 3]]}, {"k": 2}),
}


def made(name: str, columns: dict[str, Any], about: dict[str, Any], /, **other: Any) -> bytes:
    return Writer().landscape(name, 3, 9, columns, about, **other)


def checked(name: str, columns: dict[str, Any], about: dict[str, Any], /, **other: Any) -> tuple[ProbeRows, int, int]:
    return check_landscape(frames.decode(made(name, columns, about, **other)))


@pytest.mark.parametrize("name", FINE)
def test_every_part_comes_out_as_it_was_sent(name: str) -> None:
    columns, about = FINE[name]
    found, first, last = checked(name, columns, about)
    assert (" ".join(found.name), found.probe, found.step, found.about) == (name, 3, 9, about)
    assert (first, last) == ((3, 7) if name == "trajectory points" else (9, 9))
    assert found.columns.keys() == LANDSCAPE_COLUMNS[name].keys()
    for column, values in found.columns.items():
        np.testing.assert_array_equal(values, np.broadcast_to(columns.get(column, 0), values.shape))


def test_all_parts_are_tried_and_each_is_stored_under_a_kind_of_its_own() -> None:
    assert {tuple(name.split(" ")) for name in FINE} == set(landscape_frames._SCHEMAS)
    kinds = {stored_kind(name) for name in landscape_frames._SCHEMAS}
    assert len(kinds) == len(FINE) and all(kind & 255 == Kind.LANDSCAPE and kind < 2**15 for kind in kinds)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("line points", {"what": "curve"}, "'what' must be one of"),
    ("line points", {"what": None}, "'what'"),
    ("line points", {"what": ["line"]}, "'what'"),
    ("line points", {"part": "plane"}, "'part' of a line must be one of"),
    ("line points", {"part": {}}, "'part'"),
    ("line points", {"probe": -1}, "'probe'"),
    ("line points", {"probe": True}, "'probe'"),
    ("line points", {"step": 1.5}, "'step'"),
    ("line points", {"step": 2**53}, "'step'"),
    ("line points", {"rows": 0}, "at least 1"),
    ("line points", {"columns": None}, "'columns'"),
    ("line points", {"columns": [["alpha", "f8", 1]]}, "'columns' must be"),
    ("line points", {"about": []}, "'about'"),
    ("line points", {"about": {"loss": 1.5}}, "'loss' in 'about'"),
    ("line points", {"about": {"nested": {"a": 1}}}, "'nested' in 'about'"),
    ("line points", {"about": {"none": None}}, "'none' in 'about'"),
    ("line points", {"about": {"seed": 2**60}}, "'seed' in 'about'"),
    ("line points", {"about": {"text": "x" * 2000}}, "characters"),
    ("line points", {"about": {"x" * 100: 1}}, "characters"),
    ("line points", {"about": {"text": "a\0b"}}, "NUL"),
    ("line points", {"about": {str(n): n for n in range(40)}}, "at most 32"),
    ("line summary", {"rows": 2}, "must be 1"),
    ("verdict unsupported", {"about": {}}, "'reason'"),
    ("verdict unsupported", {"about": {"reason": 5}}, "'reason'"),
    ("verdict unsupported", {"rows": 1}, "must be 0"),
    ("surface plane", {"about": {}}, "'size'"),
    ("surface plane", {"about": {"size": 1}}, "'size'"),
    ("surface plane", {"about": {"size": 1000}}, "'size'"),
    ("surface plane", {"about": {"size": True}}, "'size'"),
    ("surface points", {"about": {"size": 32}}, "i = 32 on a side of 32 points"),
    ("trajectory points", {"about": {"k": 3}}, "'k'"),
]
WRONG_VALUES: list[tuple[str, dict[str, Any], str]] = [
    ("line points", {"alpha": [NAN, 1]}, "'alpha'"),
    ("line points", {"alpha": [INF, 1]}, "'alpha'"),
    ("line points", {"seconds": -1}, "'seconds'"),
    ("line points", {"seconds": NAN}, "'seconds'"),
    ("line summary", {"critical_low": NAN, "critical_high": 1}, "'critical_low'"),
    ("line summary", {"critical_low": 2, "critical_high": 1}, "'critical_low'"),
    ("line summary", {"critical_low": -1}, "'critical_low'"),
    ("line summary", {"spent": -1}, "'spent'"),
    ("line summary", {"elapsed": INF}, "'elapsed'"),
    ("verdict points", {"seconds": INF}, "'seconds'"),
    ("surface plane", {"low_u": 1}, "'low_u'"),
    ("surface plane", {"high_v": INF}, "'high_v'"),
    ("surface plane", {"unit_u": -1}, "'unit_u'"),
    ("surface points", {"j": 33}, "j = 33"),
    ("surface path", {"step": [-1, 2]}, "'step'"),
    ("trajectory points", {"step": [1, 2**53]}, "'step'"),
    ("trajectory points", {"sketch": np.zeros((1, 5000))}, "'sketch'"),
]


@pytest.mark.parametrize(("name", "other", "words"), WRONG)
def test_a_wrong_header_is_refused_with_a_sentence(name: str, other: dict[str, Any], words: str) -> None:
    columns, about = FINE[name]
    with pytest.raises(FrameError) as refusal:
        checked(name, columns, about, **other)
    assert refusal.value.code == "field" and words in str(refusal.value) and len(str(refusal.value)) < 400


@pytest.mark.parametrize(("name", "values", "words"), WRONG_VALUES)
def test_a_value_without_sense_is_refused_by_its_column(name: str, values: dict[str, Any], words: str) -> None:
    columns, about = FINE[name]
    with pytest.raises(FrameError) as refusal:
        checked(name, columns | values, about if "sketch" not in values else {})
    assert refusal.value.code == "field" and words in str(refusal.value)


def test_columns_that_do_not_fill_the_body_are_refused_as_such() -> None:
    columns, about = FINE["line points"]
    with pytest.raises(FrameError) as refusal:
        checked("line points", columns, about, rows=5000)
    assert refusal.value.code == "body"


def test_they_are_kept_once_and_move_neither_the_end_of_a_run_nor_its_columns(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer(["a"])
            heard: list[RunChange] = []
            await keep(store, writer.opening(), writer.steps(np.arange(10)))
            before = (await rows(store, tables.dirty), await store.queries.view(writer.run))
            store.on_commit(lambda changes: heard.extend(changes.values()))
            sent = [writer.landscape(name, 1, 500, *FINE[name]) for name in FINE]
            assert await keep(store, *sent, *sent) == ["ok"] * 16  # sent again, as after a lost ack
            assert await keep(store, writer.landscape("line points", 1, 5, what="?")) == ["field"]
            stored = {row[1]: row for row in await rows(store, tables.frames) if row[2] & 255 == Kind.LANDSCAPE}
            assert len(stored) == len(FINE)
            for seq, name in enumerate(FINE, 3):
                _, _, kind, _, count, first, last, _ = stored[seq]
                what, part = name.split(" ")
                assert kind == stored_kind((what, part)) and count == (0 if part == "unsupported" else count or -1)
                assert (first, last) == ((3, 7) if what == "trajectory" else (500, 500))
            view = await store.queries.view(writer.run)
            assert (await rows(store, tables.dirty), view.last_step) == (before[0], before[1].last_step)
            assert any(change.landscape for change in heard) and all(change.first is None for change in heard)
            assert view.segments[0].stream.scalars_span == 0

    asyncio.run(scenario())
