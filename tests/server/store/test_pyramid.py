"""The pyramid against plain numpy over all values, whatever the order in which frames arrive."""

from __future__ import annotations

import asyncio
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gradwatch_server.store.aggregate import Aggregate
from gradwatch_server.store.modules import module_norms, modules_of
from gradwatch_server.store.pyramid import LEVELS
from gradwatch_server.store.queries import Reduced
from gradwatch_server.store.store import Store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ..stream import MISSING, Writer
from .opened import buckets, keep, opened, pieces

LAYERS = ["m.weight", "m.bias", "n"]
ODD = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e-40, 3e38, 0.0])


@dataclass
class Recording:
    """What a training recorded, and the frames that say so."""

    writer: Writer
    steps: NDArray[np.int64]
    loss: NDArray[np.float64]
    norms: NDArray[np.float32]
    absent: NDArray[np.bool_]
    frames: list[bytes]


def record(seed: int, count: int, cuts: list[int]) -> Recording:
    """A recording with holes between steps, and odd values, missing losses and absent layers among them."""
    chance = np.random.default_rng(seed)
    steps = np.cumsum(chance.choice([1, 1, 1, 1, 2, 90], count)) - 1
    loss = chance.normal(size=count)
    norms = np.exp(chance.normal(size=(count, 3))).astype(np.float32)
    for values in (loss, norms):
        odd = chance.random(values.shape) < 0.05
        values[odd] = chance.choice(ODD, int(odd.sum()))
    loss[chance.random(count) < 0.1] = MISSING
    absent = chance.random((count, 3)) < 0.1
    norms[absent] = 0
    writer = Writer(LAYERS, run=f"seed {seed}")
    data = [writer.hello(), writer.layer_table()]
    edges = [0, *sorted({cut % count for cut in cuts} - {0}), count]
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        part = slice(start, end)
        data.append(writer.steps(steps[part], norms[part], absent[part], loss=loss[part]))
    data.append(writer.scalars([("logged", int(step), float(step)) for step in steps[::7]]))
    return Recording(writer, steps, loss, norms, absent, data)


def check_against_numpy(found: Reduced, made: Recording) -> None:
    """Every column equals what numpy says of its steps; nothing is in no column."""
    given_loss = made.loss.view(np.uint64) != np.float64(MISSING).view(np.uint64)
    seen = 0
    for column, (first, last) in enumerate(zip(found.first.tolist(), found.last.tolist(), strict=True)):
        rows = (made.steps >= first) & (made.steps <= last)
        seen += int(rows.sum())
        check_column(found.scalars, column, 0, made.loss[rows & given_loss])
        assert found.layers is not None
        for layer in range(3):
            check_column(found.layers, column, layer, made.norms[rows & ~made.absent[:, layer], layer])
    assert seen == len(made.steps)


def check_column(found: Aggregate, column: int, series: int, values: NDArray[Any]) -> None:
    """One cell of an aggregate equals what numpy says of ``values``."""
    finite = values[np.isfinite(values)].astype(np.float64)
    assert found.count[column, series] == len(finite)
    assert found.nonfinite[column, series] == len(values) - len(finite)
    if len(finite):
        assert found.minimum[column, series] == finite.min()
        assert found.maximum[column, series] == finite.max()
        # Means of layers were rounded to float32; and where a mean is far smaller than its values, the order of
        # adding up shows in more of its digits.
        precision = 1e-12 if values.dtype == np.float64 else 1.3e-7
        rounding = precision * np.abs(finite).mean() + (1e-300 if values.dtype == np.float64 else 1e-44)
        np.testing.assert_allclose(found.mean()[column, series], finite.mean(), rtol=precision, atol=rounding)
    if len(values) and found.last is not None:
        np.testing.assert_array_equal(found.last[column, series], values[-1])


async def check_all_widths(store: Store, made: Recording) -> None:
    view = await store.queries.view(made.writer.run)
    first, last = int(made.steps[0]), int(made.steps[-1])
    for width in (1, 2, 64, 256, 2048):
        found = await store.queries.reduce(view, first, last, width, "layer", names=["loss"])
        check_against_numpy(found, made)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.integers(1, 500), st.lists(st.integers(0, 10_000), max_size=8), st.randoms())
def test_any_arrival_gives_the_same_bytes_and_what_numpy_says(
    seed: int, count: int, cuts: list[int], chance: random.Random
) -> None:
    made = record(seed, count, cuts)
    hello, table, *rest = pieces(made.frames)
    shuffled = [*rest, *rest[:: max(1, len(rest) // 3)]]
    chance.shuffle(shuffled)

    async def scenario(folder: str) -> None:
        async with opened(f"sqlite+aiosqlite:///{folder}/a.db") as store:
            await keep(store, hello, table, *rest)
            await check_all_widths(store, made)
            in_order = await buckets(store)
            await check_all_widths(store, made)
        async with opened(f"sqlite+aiosqlite:///{folder}/b.db") as store:
            await keep(store, hello, table)
            for number, frame in enumerate(shuffled):
                await keep(store, frame)
                if number % 4 == 0:
                    await store.sealer.drain()  # so that late frames meet buckets that are done
            assert await buckets(store) == in_order

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(folder))


def test_one_spike_and_one_nan_are_seen_at_every_level(tmp_path: Path) -> None:
    count = 70_000
    steps = np.arange(count)
    norms = np.ones((count, 3), np.float32)
    norms[12_345, 1] = 1e6
    norms[54_321, 2] = np.nan
    writer = Writer(LAYERS)

    async def scenario() -> None:
        async with opened(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as store:
            cuts = [slice(at, at + 10_000) for at in range(0, count, 10_000)]
            await keep(store, writer.opening(), *(writer.steps(steps[cut], norms[cut]) for cut in cuts))
            await store.sealer.drain()
            view = await store.queries.view(writer.run)
            for width in [*(2**power for power in range(0, 18, 3)), *LEVELS[:7]]:
                found = (await store.queries.reduce(view, 0, count - 1, width, "layer", names=[])).layers
                assert found is not None
                assert found.maximum[12_345 // width, 1] == 1e6
                assert found.nonfinite[54_321 // width, 2] == 1 and found.nonfinite.sum() == 1
                assert found.count.sum() == 3 * count - 1

    asyncio.run(scenario())


def test_a_step_given_twice_counts_once_and_the_later_frame_wins(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as store:
            writer = Writer()
            await keep(store, writer.opening(), writer.steps(np.arange(100), loss=1.0))
            await store.sealer.drain()
            await keep(store, writer.steps(np.arange(50, 80), loss=3.0))
            for _ in range(2):
                view = await store.queries.view(writer.run)
                found = await store.queries.reduce(view, 0, 99, 64, names=["loss"])
                assert found.scalars.count.sum() == 100
                assert found.scalars.total.sum() == 70 + 3 * 30
                await store.sealer.drain()

    asyncio.run(scenario())


def test_module_norms_are_computed_per_step_with_the_runs_p(tmp_path: Path) -> None:
    norms = np.array([[3, 4, 5], [1, 0, 2], [np.nan, 1, 1]], np.float32)

    async def scenario() -> None:
        async with opened(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as store:
            writer = Writer(LAYERS)
            absent = np.array([[False, False, False], [True, True, False], [False, False, False]])
            await keep(store, writer.opening(), writer.steps([0, 1, 2], norms, absent))
            for _ in range(2):
                view = await store.queries.view(writer.run)
                found = await store.queries.reduce(view, 0, 2, 64, "module", names=[])
                assert found.layer_names == ["m", "n"] and found.layers is not None
                assert found.layers.maximum.tolist() == [[5, 5]]
                assert found.layers.count.tolist() == [[1, 3]]
                assert found.layers.nonfinite.tolist() == [[1, 0]]
                await store.sealer.drain()

    asyncio.run(scenario())


def test_module_norms_for_other_p_and_for_huge_norms() -> None:
    modules = modules_of(["a.x", "b", "a.y"])
    assert modules.names == ["a", "b"] and modules.members() == [[0, 2], [1]]
    values = np.array([[3e30, 1, 4e30]], np.float32)
    for p, wanted in ((2.0, 5e30), (1.0, 7e30), (float("inf"), 4e30)):
        norms, present = module_norms(values, None, modules, p)
        np.testing.assert_allclose(norms, [[wanted, 1]], rtol=1e-6)
        assert present is None
    assert module_norms(np.zeros((2, 3), np.float32), None, modules, 2.0)[0].tolist() == [[0, 0], [0, 0]]
