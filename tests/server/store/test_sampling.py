from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradwatch.frames import Kind
from gradwatch_server.store import deletion, sample_reading, sampling, tables
from gradwatch_server.store.queries import Reduced
from gradwatch_server.store.store import Store

from ..stream import HISTOGRAM_COLUMNS, SAMPLES_COLUMNS, Writer, bins
from .opened import keep, opened, rows

NAN, INF = float("nan"), float("inf")
Samples = Sequence[tuple[str, int, float]]
Cell = tuple[float, float, float, int, int]


async def asked(store: Store, writer: Writer, metric: str, first: int, last: int, width: int) -> Reduced:
    return await store.queries.sampled(await store.queries.view(writer.run), metric, first, last, width)


def cells(found: Reduced) -> dict[tuple[int, str], Cell]:
    """(first step of the column, layer): min, max, mean, count, non-finite; of every cell with a sample."""
    layers = found.layers
    assert layers is not None and layers.count.shape == (len(found.first), len(found.layer_names))
    fields = (layers.minimum, layers.maximum, layers.mean(), layers.count, layers.nonfinite)
    return {
        (int(first), name): tuple(field[column, layer].item() for field in fields)
        for column, first in enumerate(found.first)
        for layer, name in enumerate(found.layer_names)
        if layers.count[column, layer] or layers.nonfinite[column, layer]
    }


def by_hand(samples: Samples, width: int) -> dict[tuple[int, str], Cell]:
    """The same, value by value."""
    gathered: dict[tuple[int, str], list[float]] = {}
    for (name, step), value in {(name, step): value for name, step, value in samples}.items():
        gathered.setdefault((step // width * width, name), []).append(float(np.float32(value)))
    found: dict[tuple[int, str], Cell] = {}
    for key, values in gathered.items():
        finite = [value for value in values if np.isfinite(value)]
        extent = (min(finite), max(finite), sum(finite) / len(finite)) if finite else (INF, -INF, NAN)
        found[key] = (*extent, len(finite), len(values) - len(finite))
    return found


def the_same(found: dict[tuple[int, str], Cell], wanted: dict[tuple[int, str], Cell]) -> bool:
    return found.keys() == wanted.keys() and all(
        np.allclose(found[key], wanted[key], rtol=1e-12, equal_nan=True) for key in found
    )


def test_samples_are_reduced_as_by_hand_at_every_width(database: str) -> None:
    chance = np.random.default_rng(5)

    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer(["a", "b", "c", "d"])
            await keep(store, writer.opening(), writer.steps(np.arange(1000)))
            told: dict[str, list[tuple[str, int, float]]] = {"weight_norm": [], "update_ratio": []}
            for start in range(0, 1000, 50):
                for metric, samples in told.items():
                    # Values and steps without any order; some not finite, some said twice.
                    some = [(int(p), int(s), float(v)) for p, s, v in zip(*drawn(chance, start), strict=True)]
                    assert await keep(store, writer.samples(metric, some)) == ["ok"]
                    samples += [(writer.layers[place], step, value) for place, step, value in some]
            for metric, samples in told.items():
                for first, last, width in ((0, 999, 1), (0, 999, 64), (0, 999, 1024), (130, 700, 32), (600, 5000, 128)):
                    found = await asked(store, writer, metric, first, last, width)
                    low, high = first // width * width, last // width * width + width
                    inside = [sample for sample in samples if low <= sample[1] < high]
                    assert the_same(cells(found), by_hand(inside, width)), (metric, first, last, width)
                    assert found.first.tolist() == list(range(low, min(high, 1000), width))
                    assert not found.truncated and found.metric == metric
            assert cells(await asked(store, writer, "layer_coefficient", 0, 999, 64)) == {}

    asyncio.run(scenario())


def drawn(chance: np.random.Generator, start: int) -> tuple[Any, Any, Any]:
    values = np.exp(chance.normal(0, 3, 30))
    values[chance.random(30) < 0.1] = NAN
    values[chance.random(30) < 0.1] = INF
    return chance.integers(0, 3, 30), start + chance.integers(0, 50, 30), values  # layer d is never sampled


def test_the_last_word_on_a_layer_and_step_counts(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer(["a", "b"])
            await keep(store, writer.opening(), writer.steps(np.arange(9)))
            await keep(store, writer.samples("weight_norm", [(0, 3, 1.0), (0, 3, 2.0), (1, 3, 5.0)]))
            await keep(store, writer.samples("weight_norm", [(0, 4, 7.0), (1, 3, 6.0)]))
            found = cells(await asked(store, writer, "weight_norm", 0, 8, 16))
            assert found == {(0, "a"): (2, 7, 4.5, 2, 0), (0, "b"): (6, 6, 6, 1, 0)}

    asyncio.run(scenario())


def test_places_are_those_of_the_cited_table_and_names_find_the_runs_layers(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            first = Writer(["a", "b"])
            await keep(store, first.opening(), first.steps([0, 1]), first.samples("weight_norm", [(1, 1, 2.0)]))
            earlier = first.table
            first.layers = ["c", "b", "a"]
            await keep(store, first.layer_table(), first.steps([2, 3]), first.samples("weight_norm", [(0, 2, 3.0)]))
            assert await keep(store, first.samples("weight_norm", [(0, 3, 4.0)], table=earlier)) == ["ok"]
            second = Writer(["d", "c"], start_step=4)
            await keep(store, second.opening(), second.steps([4, 5]), second.samples("weight_norm", [(1, 5, 6.0)]))
            found = await asked(store, first, "weight_norm", 0, 5, 1)
            assert found.layer_names == ["a", "b", "c", "d"]
            assert {key: cell[0] for key, cell in cells(found).items()} == {
                (1, "b"): 2,
                (2, "c"): 3,
                (3, "a"): 4,
                (5, "c"): 6,
            }

    asyncio.run(scenario())


def test_a_new_attempt_hides_older_samples_and_a_deleted_run_has_none(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            old, new = Writer(["a"]), Writer(["a"], start_step=70)
            bystander = Writer(["a"], run="other")
            for writer, steps in ((old, range(100)), (new, range(70, 90)), (bystander, range(9))):
                some = [(0, step, 1.0 + (writer is new)) for step in steps]
                await keep(store, writer.opening(), writer.steps(list(steps)), writer.samples("weight_norm", some))
                await keep(store, writer.histograms([(0, step, [2.0]) for step in steps]))
            found = cells(await asked(store, old, "weight_norm", 0, 99, 128))
            assert found[0, "a"] == (1, 2, (70 + 40) / 90, 90, 0)
            shared = cells(await asked(store, old, "weight_norm", 64, 79, 16))  # a column of both attempts
            assert shared == {(64, "a"): (1, 2, (6 + 20) / 16, 16, 0)}
            alone = await store.queries.view(old.run, attempt=1)
            assert (await store.queries.sampled(alone, "weight_norm", 0, 99, 128)).layers.count.tolist() == [[100]]  # type: ignore[union-attr]
            counted = await store.queries.histograms(await store.queries.view(old.run), "a", 0, 99, 128)
            assert counted.samples.tolist() == [90] == counted.elements.tolist()
            await deletion.delete_run(store, old.run, 2e9)
            owners = {row[0] for row in await rows(store, tables.frames)}
            known = store.registry.known(bystander.key)
            assert known and owners == {known.id}
            assert (await asked(store, bystander, "weight_norm", 0, 8, 16)).layers.count.tolist() == [[9]]  # type: ignore[union-attr]

    asyncio.run(scenario())


def test_histograms_are_added_up_in_their_columns(database: str) -> None:
    chance = np.random.default_rng(7)
    tiny = np.array([0.0, -0.0, 5e-324, 2.0**-49, 2.0**-48, -(2.0**-48) * 1.5, 2.0**16, -1e30, 1.0, -1.0, 0.75])

    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer(["a", "b"])
            await keep(store, writer.opening(), writer.steps(np.arange(200)))
            gradients = {step: chance.normal(0, 10.0 ** chance.integers(-12, 4), 50) for step in range(0, 200, 7)}
            gradients[196] = tiny
            for step, gradient in gradients.items():
                frame = writer.histograms([(0, step, np.ones(3)), (1, step, gradient)])
                assert await keep(store, frame) == ["ok"]
            view = await store.queries.view(writer.run)
            for width in (1, 32, 256):
                found = await store.queries.histograms(view, "b", 0, 199, width)
                assert found.first.tolist() == list(range(0, 200, width)) and not found.truncated
                for at, first in enumerate(found.first.tolist()):
                    mine = [np.abs(g) for step, g in gradients.items() if first <= step < first + width]
                    values = np.concatenate([*mine, np.zeros(0)])
                    assert found.samples[at] == len(mine) and found.elements[at] == len(values)
                    assert found.zero[at] == (values == 0).sum() and found.nonfinite[at] == 0
                    assert found.counts[at].tolist() == bins(values)
            last = (await store.queries.histograms(view, "b", 196, 199, 4)).counts[0]
            assert (last[0], last[1], last[65], last[48], last[49]) == (2, 2, 2, 1, 2)
            nothing = await store.queries.histograms(view, "b", 1, 5, 1)
            assert nothing.samples.tolist() == [0] * 5 and not nothing.counts.any()

    asyncio.run(scenario())


WRONG: dict[str, list[dict[str, Any]]] = {
    "table": [{"table": "0123456789abcdef"}, {"table": None}, {"table": 5}],
    "body": [{"rows": 1}, {"rows": 9}],
    "field": [
        {"metric": "grad_norm"},
        {"metric": None},
        {"metric": ["weight_norm"]},
        {"rows": -1},
        {"rows": True},
        {"columns": SAMPLES_COLUMNS[:2]},
        {"columns": [*SAMPLES_COLUMNS[:2], ["value", "f8", 1]]},
        {"columns": None},
    ],
}
WRONG_HISTOGRAM: list[dict[str, Any]] = [
    {"metric": "weight_norm"},
    {"lowest": -24},
    {"lowest": None},
    {"lowest": -48.0},
    {"columns": HISTOGRAM_COLUMNS[:-1]},
]


def test_what_makes_no_sense_is_refused_and_leaves_nothing(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer(["a", "b"])
            await keep(store, writer.opening(), writer.steps([0, 1]))
            good = [(0, 0, 1.0), (1, 1, 2.0)]
            for code, wrong in WRONG.items():
                for header in wrong:
                    assert await keep(store, writer.samples("weight_norm", good, **header)) == [code], header
            for header in WRONG_HISTOGRAM:
                assert await keep(store, writer.histograms([(0, 0, [1.0])], **header)) == ["field"], header
            for row in ((2, 0, 1.0), (0, -1, 1.0), (0, 2**53, 1.0)):
                assert await keep(store, writer.samples("weight_norm", [good[0], row])) == ["field"], row
            assert await keep(store, writer.histograms([(2, 0, [1.0])])) == ["field"]
            header = {"metric": "weight_norm", "table": writer.table, "rows": 0, "columns": SAMPLES_COLUMNS}
            assert await keep(store, writer.frame(Kind.SAMPLES, header, [b"", b"", b""])) == ["field"]
            assert len(await rows(store, tables.frames)) == 3
            frame = writer.samples("weight_norm", good)
            assert await keep(store, frame, frame) == ["ok", "ok"]  # sent again, as after a lost ack
            assert len(await rows(store, tables.frames)) == 4

    asyncio.run(scenario())


def test_samples_move_neither_the_end_of_a_run_nor_its_columns(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer(["a"])
            await keep(store, writer.opening(), writer.steps(np.arange(10)))
            before = (await rows(store, tables.dirty), await store.queries.view(writer.run))
            await keep(store, writer.samples("weight_norm", [(0, 3, 1.0), (0, 500, 9.0)]))
            view = await store.queries.view(writer.run)
            assert (await rows(store, tables.dirty), view.last_step) == (before[0], before[1].last_step)
            assert cells(await asked(store, writer, "weight_norm", 0, 900, 1024)) == {(0, "a"): (1, 1, 1, 1, 0)}
            await keep(store, writer.steps(np.arange(10, 600)))
            found = cells(await asked(store, writer, "weight_norm", 400, 599, 8))
            assert found == {(496, "a"): (9, 9, 9, 1, 0)}, "a frame that begins far left of the range"

    asyncio.run(scenario())


def test_what_is_too_much_for_one_answer_is_thinned_evenly_and_said(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer(["a"])
            await keep(store, writer.opening(), writer.steps(np.arange(2048)))
            # Densely in the first quarter only, then every 16th step.
            sampled = [*range(512), *range(512, 2048, 16)]
            await keep(store, *(writer.samples("weight_norm", [(0, step, step)]) for step in sampled))
            await keep(store, *(writer.samples("update_ratio", [(0, step, step)]) for step in sampled[:50]))
            whole = await asked(store, writer, "weight_norm", 0, 2047, 128)
            assert whole.layers is not None and whole.layers.count.sum() == len(sampled) and not whole.truncated
            size = len(writer.samples("weight_norm", [(0, 0, 0.0)]))
            for frames, bytes_ in ((100, 1 << 30), (4000, 100 * size)):
                monkeypatch.setattr(sampling, "MOST_FRAMES", frames)
                monkeypatch.setattr(sampling, "MOST_BYTES", bytes_)
                found = await asked(store, writer, "weight_norm", 0, 2047, 128)
                assert found.layers is not None and found.truncated
                assert 60 <= found.layers.count.sum() <= 120
                assert (found.layers.count > 0).all(), "every column keeps some"
                few = await asked(store, writer, "update_ratio", 0, 2047, 128)
                assert not few.truncated and cells(few)[0, "a"][3] == 50

    asyncio.run(scenario())


def test_two_attempts_share_what_may_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with opened(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}") as store:
            old, new, newest = Writer(["a"]), Writer(["a"], start_step=400), Writer(["a"], start_step=700)
            for writer, steps in ((old, range(400)), (new, range(400, 700)), (newest, range(700, 710))):
                await keep(store, writer.opening(), writer.steps(list(steps)))
                await keep(store, *(writer.samples("weight_norm", [(0, step, 1.0)]) for step in steps))
            monkeypatch.setattr(sampling, "MOST_FRAMES", 90)
            found = await asked(store, old, "weight_norm", 0, 709, 1)
            assert found.layers is not None and found.truncated
            counts = [int(part.sum()) for part in np.split(found.layers.count[:, 0], [400, 700])]
            assert counts[2] == 10 and 30 <= counts[0] <= 50 and 30 <= counts[1] <= 50, counts
            assert not (await asked(store, old, "weight_norm", 700, 709, 1)).truncated

    asyncio.run(scenario())


def test_a_step_may_take_many_frames(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer([f"layer{at}" for at in range(40)])
            await keep(store, writer.opening(), writer.steps(np.arange(64)))
            for step in range(64):
                frames = [writer.histograms([(place, step, [1.0 + place])]) for place in range(40)]
                assert await keep(store, *frames) == ["ok"] * 40
            view = await store.queries.view(writer.run)
            monkeypatch.setattr(sampling, "MOST_HISTOGRAM_BYTES", 20 * 40 * len(writer.histograms([(0, 0, [1.0])])))
            for layer in ("layer0", "layer39"):
                found = await store.queries.histograms(view, layer, 0, 63, 16)
                assert found.truncated and (found.samples >= 4).all() and 18 <= found.samples.sum() <= 30
                assert (found.samples == found.elements).all()
            monkeypatch.setattr(sampling, "MOST_FRAMES", 10_000)
            monkeypatch.setattr(sampling, "MOST_HISTOGRAM_BYTES", 64 << 20)
            whole = await store.queries.histograms(view, "layer39", 0, 63, 16)
            assert whole.samples.tolist() == [16] * 4 and not whole.truncated

    asyncio.run(scenario())


def test_any_beginning_of_the_reading_order_is_spread_evenly() -> None:
    for count in (1, 2, 3, 17, 64, 1000):
        order = sample_reading._coarse_to_fine(count)
        assert sorted(order) == list(range(count))
        for part in (4, 16):
            some = sorted(order[:part])
            assert max(np.diff([*some, count]), default=count) <= 2 * count / min(part, count) + 1
    assert sample_reading._coarse_to_fine(0) == []
