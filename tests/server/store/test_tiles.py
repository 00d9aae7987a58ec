from __future__ import annotations

import numpy as np
from gradwatch_server.store import tiles
from gradwatch_server.store.decode import MISSING, Mask, ScalarRows, StepRows
from gradwatch_server.store.tiles import SealedRows
from hypothesis import given
from hypothesis import strategies as st


def rows(seed: int, count: int, layers: int, dtype: type[np.floating] = np.float32) -> SealedRows:
    """Rows with holes between their steps; odd values, missing scalars and absent layers among them."""
    chance = np.random.default_rng(seed)
    steps = np.cumsum(chance.integers(1, 4, count))
    values = chance.normal(size=(count, layers)).astype(dtype)
    values[chance.random(values.shape) < 0.1] = np.nan
    loss = np.where(chance.random(count) < 0.2, MISSING, chance.normal(size=count))
    present: Mask | None = np.asarray(chance.random(values.shape) > 0.1) if seed % 2 else None
    scalars = {"loss": loss, "threshold": np.full(count, np.inf)}
    return SealedRows(StepRows(steps, 1e9 + steps / 7, scalars, values, present), chance.integers(0, 99, count))


@given(st.integers(0, 999), st.integers(1, 256), st.integers(1, 150), st.sampled_from([np.float32, np.float64]))
def test_a_head_and_its_tiles_are_the_rows(seed: int, count: int, layers: int, dtype: type[np.floating]) -> None:
    made = rows(seed, count, layers, dtype)
    head = tiles.unpack_head(tiles.pack_head(made))
    assert head.rows.steps.tolist() == made.rows.steps.tolist() and head.seqs.tolist() == made.seqs.tolist()
    assert head.rows.times.tobytes() == made.rows.times.tobytes()
    for name, values in made.rows.scalars.items():
        assert head.rows.scalars[name].tobytes() == values.tobytes()
    for part, data in tiles.tiles_of(made.rows):
        series = slice((part - tiles.LAYERS) * tiles.CHUNK, (part - tiles.LAYERS + 1) * tiles.CHUNK)
        values, present = tiles.unpack_layers(data)
        assert values.tobytes() == made.rows.layers[:, series].tobytes()
        theirs = None if made.rows.present is None else made.rows.present[:, series]
        assert present is None if theirs is None or theirs.all() else np.array_equal(present, theirs)  # type: ignore[arg-type]


def test_layers_that_no_row_has_take_no_tile() -> None:
    made = rows(1, 10, 200).rows
    assert made.present is not None
    made.present[:, 64:128] = False
    assert [part for part, _ in tiles.tiles_of(made)] == [tiles.LAYERS, tiles.LAYERS + 2, tiles.LAYERS + 3]


def test_of_a_step_given_twice_the_higher_seq_stays_whatever_came_first() -> None:
    early = rows(2, 5, 3)
    steps = np.arange(5)
    parts = [
        SealedRows(StepRows(steps, early.rows.times, {"loss": np.full(5, value)}, early.rows.layers, None), seqs)
        for value, seqs in ((1.0, np.array([9, 1, 9, 1, 9])), (2.0, np.array([5, 5, 5, 5, 5])))
    ]
    for order in (parts, parts[::-1]):
        found = tiles.joined_rows(order, 3)
        assert found.rows.scalars["loss"].tolist() == [1, 2, 1, 2, 1]
        assert found.seqs.tolist() == [9, 5, 9, 5, 9]
    assert len(tiles.joined_rows([], 3).rows.steps) == 0


def test_logged_values_are_sorted_by_series_and_step_and_their_last_word_stays() -> None:
    def part(names: list[str], values: list[tuple[int, int, float, int]]) -> ScalarRows:
        series, steps, said, seqs = (np.array(column) for column in zip(*values, strict=True))
        return ScalarRows(names, series.astype("u4"), steps, said * 0.0, said.astype(float), seqs)

    first = part(["b", "a"], [(0, 5, 1.0, 3), (1, 5, 2.0, 3), (1, 5, 3.0, 3)])
    second = part(["b", "unused"], [(0, 5, 9.0, 2), (0, 4, 8.0, 2)])
    found = tiles.unpack_user(tiles.pack_user(tiles.joined_user([first, second])))
    assert found.names == ["a", "b"]
    got = zip(found.series.tolist(), found.steps.tolist(), found.values.tolist(), found.seqs.tolist(), strict=True)
    assert list(got) == [(0, 5, 3.0, 3), (1, 4, 8.0, 2), (1, 5, 1.0, 3)]
    assert tiles.joined_user([]).names == []
