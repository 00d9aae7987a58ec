"""What a store promises, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import numpy as np
import pytest
from gradwatch import frames
from gradwatch.frames import Kind
from gradwatch_server.store import deletion, runs, tables
from gradwatch_server.store.decode import MISSING_BITS
from gradwatch_server.store.store import Store
from gradwatch_server.store.upsert import mark_dirty

from ..stream import MISSING, Writer
from .opened import buckets, keep, opened, rows


def test_frames_are_kept_as_they_came_and_known_after_a_restart(database: str) -> None:
    writer = Writer()
    data = [writer.hello(), writer.layer_table(), writer.steps([0, 1]), writer.steps([2, 3])]

    async def first() -> None:
        async with opened(database) as store:
            assert await keep(store, *data[:2], data[3]) == ["ok"] * 3
            known = store.registry.known(writer.key)
            assert known and known.acked == (1, [[3, 3]])

    async def second() -> None:
        async with opened(database) as store:
            assert await keep(store, *data) == ["ok"] * 4
            known = store.registry.known(writer.key)
            assert known and known.acked == (3, [])
            found = await rows(store, tables.frames)
            assert [bytes(row[-1]) for row in found] == data

    asyncio.run(first())
    asyncio.run(second())


def test_the_same_key_with_other_bytes_is_a_conflict_and_the_rest_goes_on(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer()
            good = [writer.opening(), writer.steps([0], loss=1.0)]
            writer.seq -= 1
            other = writer.steps([0], loss=2.0)
            more = writer.steps([1])
            assert await keep(store, *good, other, more) == ["ok", "ok", "ok", "conflict", "ok"]
            assert await keep(store, other) == ["conflict"]
            assert len(await rows(store, tables.frames)) == 4

    asyncio.run(scenario())


def test_attempts_are_numbered_by_launch_and_a_second_hello_of_a_rank_opens_the_next(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            ranks = [Writer(launch="one", rank=rank) for rank in (0, 1)]
            again = [Writer(launch="one", rank=rank, start_step=5) for rank in (1, 0)]
            other = Writer(launch="two", start_step=9)
            for writer in (*ranks, *again, other):
                await keep(store, writer.opening())
            found = [store.registry.known(w.key) for w in (*ranks, *again, other)]
            assert [w.attempt for w in found if w] == [1, 1, 2, 2, 3]
            async with store.engines.read.connect() as connection:
                attempts = await runs.get_attempts(connection, other.run)
                events = await runs.list_events(connection, other.run, "restart", 10)
            assert [(a["number"], a["start_step"]) for a in attempts] == [(1, 0), (2, 5), (3, 9)]
            assert [event["step"] for event in events] == [5, 9]

    asyncio.run(scenario())


def test_a_new_attempt_hides_later_steps_of_the_older_which_stay_readable(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            old, new = Writer(), Writer(start_step=70)
            steps = np.arange(200)
            await keep(store, old.opening(), old.steps(steps, loss=1.0))
            await keep(store, new.opening(), new.steps(np.arange(70, 100), loss=2.0))
            await store.sealer.drain()
            view = await store.queries.view(old.run)
            assert (view.first_step, view.last_step) == (0, 99)
            for width in (1, 64, 128):
                found = await store.queries.reduce(view, 0, 99, width, names=["loss"])
                count = found.scalars.count[:, 0]
                assert count.sum() == 100
                assert found.scalars.total[:, 0].sum() == 70 + 2 * 30
            alone = await store.queries.view(old.run, attempt=1)
            found = await store.queries.reduce(alone, 0, 199, 64, names=["loss"])
            assert found.scalars.total[:, 0].sum() == 200
            page = await store.queries.raw(view, 68, 72, ["loss"], 100)
            assert page.steps.tolist() == [68, 69, 70, 71, 72]
            assert page.values[:, 0].tolist() == [1, 1, 2, 2, 2]

    asyncio.run(scenario())


def test_floats_come_back_bit_by_bit_through_raw_rows(database: str) -> None:
    bits = [0x7FF8000000000001, 0xFFF8000000ABCDEF, 0x7FF0000000000000, 0xFFF0000000000000, 0x8000000000000000, 1]
    loss = np.array([*bits, MISSING_BITS], np.uint64).view(np.float64)

    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer()
            await keep(store, writer.opening(), writer.steps(np.arange(7), loss=loss))
            view = await store.queries.view(writer.run)
            page = await store.queries.raw(view, 0, 6, ["loss"], 100)
            assert page.values[:, 0].view(np.uint64).tolist() == [*bits, MISSING_BITS]
            found = await store.queries.reduce(view, 0, 6, 1, names=["loss"])
            assert found.scalars.latest()[0][:6, 0].view(np.uint64).tolist() == bits
            assert found.scalars.nonfinite[:, 0].tolist() == [1, 1, 1, 1, 0, 0, 0]
            assert found.scalars.count[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 0]

    asyncio.run(scenario())


def test_user_series_share_the_namespace_and_are_reduced_at_every_level(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer()
            some = [("accuracy", step, step / 10) for step in range(0, 300, 10)]
            await keep(store, writer.opening(), writer.steps(np.arange(300)), writer.scalars(some))
            await keep(store, writer.scalars([("accuracy", 10, math.nan), ("accuracy", 20, 7.0)]))
            view = await store.queries.view(writer.run)
            assert "accuracy" in await store.queries.series_names(view)
            for drained in (False, True):
                if drained:
                    await store.sealer.drain()
                for width in (1, 32, 64, 256, 1024):
                    found = (await store.queries.reduce(view, 0, 299, width, names=["accuracy"])).scalars
                    assert found.count.sum() == 29 and found.nonfinite.sum() == 1
                    assert found.maximum.max() == 29.0
            page = await store.queries.raw(view, 0, 21, ["accuracy"], 100)
            assert page.values[[10, 20], 0].tolist()[1] == 7.0 and np.isnan(page.values[10, 0])

    asyncio.run(scenario())


def test_layers_that_come_later_or_under_other_names_find_their_place(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            first = Writer(["a", "b"])
            await keep(store, first.opening(), first.steps(np.arange(64), norms=[1.0, 2.0]))
            await store.sealer.drain()
            first.layers = ["b", "c"]
            await keep(store, first.layer_table(), first.steps(np.arange(64, 128), norms=[3.0, 4.0]))
            second = Writer(["c", "d"], start_step=128)
            await keep(store, second.opening(), second.steps(np.arange(128, 192), norms=[5.0, 6.0]))
            view = await store.queries.view(first.run)
            assert [layer.name for layer in await store.queries.layers(first.run)] == ["a", "b", "c", "d"]
            for _ in range(2):
                found = await store.queries.reduce(view, 0, 191, 64, "layer", names=[])
                assert found.layers is not None and found.layer_names == ["a", "b", "c", "d"]
                assert found.layers.count.tolist() == [[64, 64, 0, 0], [0, 64, 64, 0], [0, 0, 64, 64]]
                assert found.layers.mean()[0, :2].tolist() == [1, 2]
                assert found.layers.mean()[1, 1:3].tolist() == [3, 4]
                assert found.layers.mean()[2, 2:].tolist() == [5, 6]
                await store.sealer.drain()

    asyncio.run(scenario())


def test_a_chain_of_table_parts_and_an_unknown_base(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer(["a", "b", "c"])
            hello = writer.hello()
            one = [["a", [1], 1, 0], ["b", [1], 1, 1]]
            base = frames.table_hash(None, one, [])
            part = writer.frame(Kind.LAYERS, {"table": base, "base": None, "layers": one, "columns": []})
            two, schema = [["c", [1], 1, 2]], writer.schema()
            writer.table, writer._float_type = frames.table_hash(base, two, schema), "f4"
            header = {"table": writer.table, "base": base, "layers": two, "columns": schema}
            end = writer.frame(Kind.LAYERS, header)
            steps = writer.steps([0, 1], norms=[1, 2, 3])
            assert await keep(store, hello, end, steps) == ["ok", "table", "table"]
            assert await keep(store, part, end, steps) == ["ok", "ok", "ok"]
            writer.table = base
            assert await keep(store, writer.steps([2])) == ["field"]

    asyncio.run(scenario())


def test_a_deleted_run_refuses_its_writers_and_leaves_no_rows(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer, bystander = Writer(run="gone"), Writer(run="stays")
            for one in (writer, bystander):
                await keep(store, one.opening(), one.steps(np.arange(100)), one.event("x"))
            await store.sealer.drain()
            await deletion.delete_run(store, writer.run, 2e9)
            assert await keep(store, writer.steps([200])) == ["deleted"]
            late = Writer(run="gone", launch="late", started_at=1e9)
            assert await keep(store, late.hello()) == ["deleted"]
            fresh = Writer(run="gone", started_at=3e9)
            assert await keep(store, fresh.opening(), writer.steps([201])) == ["ok", "ok", "deleted"]
            owners = {
                row[0]
                for table in (tables.frames, tables.tiles, tables.pyramid, tables.sealed)
                for row in await rows(store, table)
            }
            known = [store.registry.known(one.key) for one in (bystander, fresh)]
            assert owners == {one.id for one in known if one}

    asyncio.run(scenario())


def test_a_deletion_does_not_look_again_at_what_was_deleted_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with opened(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}") as store:
            jobs: list[object] = []
            counts = []
            run = store.writer.run
            monkeypatch.setattr(store.writer, "run", lambda job: (jobs.append(job), run(job))[1])
            for number in range(4):
                writer = Writer(run=f"run {number}")
                await keep(store, writer.opening(), writer.steps(np.arange(10)))
                await store.sealer.drain()
                jobs.clear()
                await deletion.delete_run(store, writer.run, 2e9)
                counts.append(len(jobs))
            assert len(set(counts)) == 1, counts
            assert not await rows(store, tables.frames) and not await rows(store, tables.tiles)

    asyncio.run(scenario())


def test_a_mark_that_is_renewed_during_the_work_stays(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer()
            await keep(store, writer.opening(), writer.steps(np.arange(64)))
            await store.sealer.drain()
            await store.writer.run(lambda c: mark_dirty(c, tables.dirty, [(1, 64, 0), (1, 64, 0)]))
            await store.writer.run(lambda c: mark_dirty(c, tables.dirty, [(1, 64, 0)]))
            assert await rows(store, tables.dirty) == [(1, 64, 0, 2)]

    asyncio.run(scenario())


def test_a_batch_that_fails_leaves_nothing_behind_and_can_be_sent_again(tmp_path: Path) -> None:
    broken = True

    def reached(boundary: str) -> None:
        if broken and boundary == "before_commit":
            raise OSError(28, "No space left on device (disk full)")

    async def scenario() -> None:
        nonlocal broken
        store = Store(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", reached)
        await store.open()
        writer = Writer()
        data = [writer.hello(), writer.layer_table(), writer.steps([0, 1])]
        assert await keep(store, *data) == ["full"] * 3
        assert await rows(store, tables.frames) == [] == await rows(store, tables.runs)
        broken = False
        assert await keep(store, *data) == ["ok"] * 3
        await store.close()

    asyncio.run(scenario())


def test_the_pyramid_is_the_same_bytes_on_both_databases(database: str) -> None:
    async def scenario() -> dict[tuple[int, ...], bytes]:
        async with opened(database) as store:
            writer = Writer()
            steps = np.arange(500)
            norms = np.sin(np.arange(1500)).reshape(500, 3) ** 2
            await keep(store, writer.opening(), writer.steps(steps, norms=norms, loss=np.cos(steps)))
            return await buckets(store)

    found = asyncio.run(scenario())
    assert {key[1] for key in found} == {64, 256, 1024}
    fingerprint = {str(key): value.hex() for key, value in sorted(found.items())}
    _seen.setdefault("bytes", json.dumps(fingerprint))
    assert _seen["bytes"] == json.dumps(fingerprint)


_seen: dict[str, str] = {}
assert np.isnan(MISSING)
