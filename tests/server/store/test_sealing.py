"""What the hot log becomes: read the same before and after, known again when it is sent twice."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
from gradwatch_server.store import pyramid, reading, runs, tables, thinning, tiles
from gradwatch_server.store.aggregate import reduce_rows
from gradwatch_server.store.moments import reduce_moments
from gradwatch_server.store.store import Store
from gradwatch_server.store.tiles import BLOCK

from ..stream import MISSING, Writer
from .opened import keep, opened, rows

STEPS = 4 * BLOCK + 50
LAYERS = [f"m{number // 2}.{number % 2}" for number in range(70)]


def norms_of(seed: int = 3) -> np.ndarray[Any, np.dtype[np.float32]]:
    chance = np.random.default_rng(seed)
    norms = np.exp(chance.normal(size=(STEPS, len(LAYERS)))).astype(np.float32)
    odd = np.array([np.nan, np.inf, -0.0, 1e-45], np.float32)
    return np.where(chance.random(norms.shape) < 0.01, chance.choice(odd, norms.shape), norms)


def recorded(writer: Writer, norms: np.ndarray[Any, Any]) -> list[bytes]:
    loss = np.where(np.arange(STEPS) % 5 == 0, MISSING, np.arange(STEPS) / 3)
    data = [writer.hello(), writer.layer_table()]
    for start in range(0, STEPS, 37):
        part = slice(start, min(STEPS, start + 37))
        data.append(writer.steps(np.arange(part.start, part.stop), norms[part], loss=loss[part]))
        data.append(writer.scalars([("accuracy", part.start, part.start / 7)]))
    return data


async def raw(store: Store, writer: Writer, first: int = 0, last: int = STEPS - 1) -> tuple[Any, ...]:
    """Every raw value, bit by bit."""
    view = await store.queries.view(writer.run)
    found = [piece async for _, _, piece in store.queries.pieces(view, first, last)]
    names = ["loss", "accuracy"]
    return (
        np.concatenate([piece.steps for piece in found]).tolist(),
        np.concatenate([piece.scalars(names) for piece in found]).tobytes(),
        np.concatenate([piece.layers(LAYERS)[0] for piece in found]).tobytes(),
        np.concatenate([piece.layers(LAYERS)[1] for piece in found]).tobytes(),
        np.concatenate([piece.times() for piece in found]).tobytes(),
    )


def test_raw_rows_read_the_same_before_and_after_and_the_hot_log_is_empty(database: str) -> None:
    norms = norms_of()

    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer(LAYERS)
            data = recorded(writer, norms)
            assert set(await keep(store, *data)) == {"ok"}
            before = await raw(store, writer)
            assert before[0] == list(range(STEPS)) and before[2] == norms.tobytes()
            part = await raw(store, writer, 300, 700)
            await store.sealer.drain()
            assert [row[2] for row in await rows(store, tables.frames)] == [1, 2]  # hello and layers
            assert await raw(store, writer) == before and await raw(store, writer, 300, 700) == part
            # Sent once more, all is known; and what pretends to be a frame that was sealed is not believed.
            assert set(await keep(store, *data)) == {"ok"}
            writer.seq = 2
            assert await keep(store, writer.steps([0], loss=9.0)) == ["conflict"]
            assert await raw(store, writer) == before
        async with opened(database) as store:
            assert set(await keep(store, *data)) == {"ok"}
            known = store.registry.known(writer.key)
            assert known and known.acked == (len(data) - 1, [])
            assert await raw(store, writer) == before

    asyncio.run(scenario())


def test_frames_that_the_rules_have_not_judged_stay(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            store.sealer.waits_for_rules = True
            writer = Writer()
            await keep(store, writer.opening(), writer.steps(np.arange(300)), writer.steps(np.arange(300, 600)))
            await store.sealer.drain()
            assert len(await rows(store, tables.frames)) == 4 and not await rows(store, tables.tiles)
            await store.writer.run(lambda c: c.execute(tables.rule_states.insert().values(writer=1, seq=4, state="{}")))
            await store.sealer.drain()
            assert len(await rows(store, tables.frames)) == 2 and await rows(store, tables.tiles)

    asyncio.run(scenario())


def test_a_late_frame_is_merged_and_one_with_a_lower_seq_loses(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer()
            opening, low = writer.opening(), writer.steps(np.arange(100, 200), loss=1.0)
            high = writer.steps(np.arange(150, 400), loss=2.0)
            await keep(store, opening, high)
            await store.sealer.drain()
            await keep(store, low)
            for _ in range(2):
                view = await store.queries.view(writer.run)
                page = await store.queries.raw(view, 0, 999, ["loss"], 1000)
                assert page.steps.tolist() == list(range(100, 400))
                assert page.values[:, 0].tolist() == [1.0] * 50 + [2.0] * 250
                for width in (64, 256):
                    found = await store.queries.reduce(view, 0, 999, width, names=["loss"])
                    assert found.scalars.total.sum() == 50 + 2 * 250
                await store.sealer.drain()

    asyncio.run(scenario())


def test_the_pyramid_keeps_moments_of_every_layer() -> None:
    norms = norms_of()[: 2 * BLOCK]

    steps = np.arange(len(norms))
    columns, values = reduce_rows(steps, norms, None, BLOCK, last=False)
    some = pyramid.Buckets(columns, values, reduce_moments(steps, norms, None, BLOCK), None)
    again = pyramid.unpack(pyramid.pack(some, BLOCK, "<f4"), BLOCK, whole=True)
    assert again.moments is not None
    for column in range(2):
        mine = norms[column * BLOCK : (column + 1) * BLOCK].astype(np.float64)
        for layer in range(len(LAYERS)):
            finite = mine[np.isfinite(mine[:, layer]), layer]
            above = finite[finite > 0]
            np.testing.assert_allclose(again.moments.squares[column, layer], (finite**2).sum(), rtol=2.5e-4)
            logs = np.log2(above).sum()
            np.testing.assert_allclose(
                again.moments.logs[column, layer], logs, rtol=3e-4, atol=1e-6 * np.abs(np.log2(above)).sum()
            )
            assert again.moments.positive[column, layer] == len(above)
            assert again.moments.nan[column, layer] == np.isnan(mine[:, layer]).sum()
            assert again.values.minimum[column, layer] == finite.min()


def test_thinned_layers_keep_their_pyramid_and_late_steps_of_theirs_are_counted(database: str) -> None:
    norms = np.abs(norms_of()) + 1

    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer(LAYERS)
            await keep(store, *recorded(writer, norms))
            await store.sealer.drain()
            assert await thinning.thin(store, 1e9 + 2 * BLOCK) == 2 * 2  # two blocks of two tiles
            assert await thinning.thin(store, 1e9 + 2 * BLOCK) == 0
            late = [writer.steps([3, 4], loss=7.0), writer.steps([2 * BLOCK - 1, 2 * BLOCK], loss=8.0)]
            assert await keep(store, *late, writer.scalars([("accuracy", 5, 0.25)])) == ["ok"] * 3
            await store.sealer.drain()
            view = await store.queries.view(writer.run)
            assert view.thinned_to == 2 * BLOCK
            found = (await store.queries.reduce(view, 0, STEPS - 1, 64, "layer", names=[])).layers
            assert found is not None
            whole = norms[: 2 * BLOCK].reshape(-1, 64, len(LAYERS))
            finite = np.where(np.isfinite(whole), whole, -np.inf)
            np.testing.assert_array_equal(found.maximum[: 2 * BLOCK // 64], finite.max(axis=1))
            page = await store.queries.raw(view, 0, STEPS, ["loss", "accuracy"], 10_000)
            assert page.values[5, 1] == 0.25 and page.values[2 * BLOCK, 0] == 8.0
            assert (page.values[3, 0], page.values[2 * BLOCK - 1, 0]) == (1.0, (2 * BLOCK - 1) / 3)
            async with store.engines.read.connect() as connection:
                told = [e["text"] for e in await runs.list_events(connection, writer.run, "hook", 10)]
            assert [text.split(" came")[0] for text in sorted(told)] == [
                f"1 rows (steps {2 * BLOCK - 1} to {2 * BLOCK - 1})", "2 rows (steps 3 to 4)",
            ]  # fmt: skip

    asyncio.run(scenario())


def test_a_gap_of_a_trillion_steps_is_stepped_over(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer()
            far = 10**12
            await keep(store, writer.opening(), writer.steps([0, 1]), writer.scalars([("a", far, math.pi)]))
            for _ in range(2):
                view = await store.queries.view(writer.run)
                page = await store.queries.raw(view, 0, far, ["a"], 10)
                assert page.steps.tolist() == [0, 1, far] and page.next is None
                found = await store.queries.reduce(view, 0, far, 2**32, names=["a"])
                assert found.scalars.count.sum() == 1
                await store.sealer.drain()

    asyncio.run(scenario())


def test_a_run_that_was_lost_and_comes_back_far_ahead_keeps_its_first_steps_at_every_width(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer()
            await keep(store, writer.opening(), writer.steps(np.arange(100), loss=1.0))
            await store.sealer.drain()  # as when it counts as lost
            # Its spool was full meanwhile, and what is left of it begins far ahead.
            await keep(store, writer.steps(np.arange(100_000, 100_300), loss=1.0))
            for _ in range(2):
                view = await store.queries.view(writer.run)
                for level in pyramid.LEVELS[:6]:
                    found = await store.queries.reduce(view, 0, 200_000, level, names=["loss"])
                    assert found.scalars.count.sum() == 400, level
                await store.sealer.drain()

    asyncio.run(scenario())


def test_layers_that_a_repeated_step_lacks_are_absent_once_it_is_sealed_again(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer, count = Writer(LAYERS), len(LAYERS)
            await keep(store, writer.opening(), writer.steps(np.arange(100)))
            await store.sealer.drain()
            frozen = np.repeat((np.arange(count) >= 64)[None], 200, axis=0)
            await keep(store, writer.steps(np.arange(200), absent=frozen))
            for _ in range(2):
                view = await store.queries.view(writer.run)
                (piece,) = [piece async for _, _, piece in store.queries.pieces(view, 0, 199)]
                assert (piece.layers(LAYERS)[1] == ~frozen).all()
                await store.sealer.drain()
                for width in (64, 256):
                    found = await store.queries.reduce(view, 0, 199, width, "layer")
                    assert found.layers is not None and not found.layers.count[:, 64:].any()

    asyncio.run(scenario())


def test_values_logged_far_apart_are_read_in_few_pieces(database: str) -> None:
    steps = np.arange(1, 60) * 500_000

    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer()
            await keep(store, writer.opening(), writer.steps(np.arange(500)))
            await keep(store, *(writer.scalars([("tokens", int(step), float(step))]) for step in steps))
            for _ in range(2):
                view = await store.queries.view(writer.run)
                pieces = [piece async for _, _, piece in store.queries.pieces(view, 0, int(steps[-1]))]
                read = np.concatenate([piece.user.steps for piece in pieces])
                assert len(pieces) <= 8 and read.tolist() == steps.tolist()
                assert sum(len(piece.dense.steps) for piece in pieces) == 500
                await store.sealer.drain()

    asyncio.run(scenario())


def test_pieces_are_bounded_by_the_steps_they_hold_and_miss_none(database: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(reading, "PIECE_BYTES", 3 * BLOCK * (4 * 3 + 200))  # three blocks of three layers
    chance = np.random.default_rng(9)
    steps = np.cumsum(np.where(np.arange(2500) % 40 == 7, 5000, chance.choice([1, 2], 2500)))

    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer()
            await keep(store, writer.opening(), *(writer.steps(part) for part in np.array_split(steps, 90)))
            for _ in range(2):
                view = await store.queries.view(writer.run)
                pieces = [piece async for _, _, piece in store.queries.pieces(view, 0, int(steps[-1]))]
                assert np.concatenate([piece.dense.steps for piece in pieces]).tolist() == steps.tolist()
                assert max(len(piece.dense.steps) for piece in pieces) <= 5 * BLOCK
                await store.sealer.drain()

    asyncio.run(scenario())


def test_a_value_logged_ahead_ends_no_block(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer()
            await keep(store, writer.opening(), writer.steps(np.arange(300)), writer.scalars([("tokens", 10**6, 1.0)]))
            while await store.sealer.once():
                pass
            assert {row[2] for row in await rows(store, tables.tiles) if row[1] >= tiles.LAYERS} == {0}

    asyncio.run(scenario())
