"""Where a view has probes, and their frames, read in bounded pieces."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest
from gradwatch_server.store import probes
from gradwatch_server.store.landscape_frames import CELLS, LINE, PLANE, SUMMARY, TRAJECTORY
from gradwatch_server.store.probes import Anchor
from gradwatch_server.store.store import Store

from ..stream import Writer
from .opened import keep, opened

ALL = 1 << 30


async def steps(store: Store, run: str, *names: tuple[str, str], attempt: int | None = None) -> list[tuple[int, ...]]:
    found = await store.probes.anchors(await store.queries.view(run, attempt), *names)
    return [(anchor.attempt, anchor.step, anchor.last_step, anchor.frames) for anchor in found]


def test_anchors_are_found_by_part_in_step_order(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer, bystander = Writer(["a"]), Writer(["a"], run="other")
            for one in (writer, bystander):
                await keep(store, one.opening(), one.steps(np.arange(100)))
            await keep(store, bystander.landscape("line points", 0, 4, {"alpha": [0]}))
            for probe, step in enumerate((90, 10, 50)):
                some = [writer.landscape("line points", probe, step, {"alpha": [n]}) for n in range(probe + 1)]
                await keep(store, *some, writer.landscape("line summary", probe, step, {"critical_high": 1}))
            await keep(
                store, writer.landscape("trajectory points", 9, 60, {"step": [30, 60], "sketch": np.ones((2, 4))})
            )
            assert await steps(store, writer.run, LINE) == [(1, 10, 10, 2), (1, 50, 50, 3), (1, 90, 90, 1)]
            assert await steps(store, writer.run, LINE, SUMMARY) == [(1, 10, 10, 3), (1, 50, 50, 4), (1, 90, 90, 2)]
            assert await steps(store, writer.run, TRAJECTORY) == [(1, 30, 60, 1)]
            assert await steps(store, writer.run, PLANE) == []
            view = await store.queries.view(writer.run)
            anchors = await store.probes.anchors(view, LINE)
            pieces, cut = await store.probes.load(anchors[:2], ALL, LINE, SUMMARY)
            assert not cut and [(p.name[1], p.probe, p.step) for p in pieces] == [
                *[("points", 1, 10)] * 2,
                ("summary", 1, 10),
                *[("points", 2, 50)] * 3,
                ("summary", 2, 50),
            ]
            assert [piece.columns["alpha"].tolist() for piece in pieces if piece.name == LINE][-1] == [2]
            assert await store.probes.newest(view, SUMMARY) == [Anchor(anchors[0].writer, 1, 90, 90, 1)]
            assert await store.probes.newest(view, PLANE) == []

    asyncio.run(scenario())


def test_a_new_attempt_hides_older_probes_and_one_may_come_before_its_step(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            old, new = Writer(["a"]), Writer(["a"], start_step=50)
            await keep(store, old.opening(), old.steps(np.arange(80)))
            await keep(store, *(old.landscape("line points", n, 20 * n, {"alpha": [0]}) for n in range(6)))
            assert await steps(store, old.run, LINE) == [(1, 20 * n, 20 * n, 1) for n in range(6)]
            await keep(store, new.opening(), new.steps([50]), new.landscape("line points", 0, 60, {"alpha": [0]}))
            wanted = [(1, 0), (1, 20), (1, 40), (2, 60)]
            assert [found[:2] for found in await steps(store, old.run, LINE)] == wanted
            assert len(await steps(store, old.run, LINE, attempt=1)) == 6
            newest = await store.probes.newest(await store.queries.view(old.run), LINE)
            assert [(anchor.attempt, anchor.step) for anchor in newest] == [(1, 40), (2, 60)]

    asyncio.run(scenario())


def test_the_order_of_arrival_does_not_matter(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer(["a"])
            await keep(store, writer.opening(), writer.steps([0]))
            sent = [
                writer.landscape("surface points", 1, 7, {"i": [n % 5], "j": [n // 5], "loss": [n]}) for n in range(25)
            ]
            sent += [writer.landscape("surface points", 1, 7, {"i": [0], "j": [0], "loss": [99.0]})]
            random.Random(3).shuffle(sent)
            await keep(store, *sent, *sent[:5])
            anchors = await store.probes.anchors(await store.queries.view(writer.run), CELLS)
            pieces, _ = await store.probes.load(anchors, ALL, CELLS)
            assert [piece.columns["loss"].tolist() for piece in pieces] == [[n] for n in [*range(25), 99]]
            assert await store.probes.counts(anchors, CELLS) == {anchors[0]: 26}

    asyncio.run(scenario())


def test_frames_kept_in_memory_are_those_of_the_database_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with opened(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as store:
            writer = Writer(["a"])
            await keep(store, writer.opening(), writer.steps([0]))
            sent = [writer.landscape("line points", n, n, {"alpha": [n], "loss": [n / 3]}) for n in range(50)]
            await keep(store, *sent)
            anchors = await store.probes.anchors(await store.queries.view(writer.run), LINE)
            monkeypatch.setattr(probes, "MOST_KEPT", 10 * (len(sent[0]) + 3000))
            kept = store.probes._kept._rows
            for _ in range(3):
                for some in (anchors, anchors[20:23], anchors[::-1]):
                    pieces, _ = await store.probes.load(some, ALL, LINE)
                    told = sorted((piece.probe, *piece.columns["loss"].tolist()) for piece in pieces)
                    assert told == sorted((anchor.step, anchor.step / 3) for anchor in some)
                    assert 3 <= len(kept) <= 12
                    assert store.probes._kept._size == sum(size for _, size in kept.values()) <= probes.MOST_KEPT
            assert await steps(store, writer.run, LINE) == [(1, n, n, 1) for n in range(50)]

    asyncio.run(scenario())


def test_what_is_too_much_is_left_out_from_the_anchors_named_last(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as store:
            writer = Writer(["a"])
            await keep(store, writer.opening(), writer.steps([0]))
            sent = [writer.landscape("line points", n, n, {"alpha": [0.0]}) for n in range(300)]
            await keep(store, *sent)
            anchors = await store.probes.anchors(await store.queries.view(writer.run), LINE)
            assert len(anchors) == 300
            whole, cut = await store.probes.load(anchors, ALL, LINE)
            assert [piece.probe for piece in whole] == list(range(300)) and not cut
            some, cut = await store.probes.load(anchors[::-1], sum(map(len, sent[290:])), LINE)
            assert [piece.probe for piece in some] == list(range(290, 300)) and cut

    asyncio.run(scenario())
