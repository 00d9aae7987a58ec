"""The tables of pandas and polars."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import polars
import pytest
from gradwatch.measurements import LayerColumns, Layers, Records, ReducedSeries, Series, SeriesColumns

STEPS = np.array([3, 4, 9])
GAP = np.array([True, False, True])


def series() -> Series:
    loss = np.array([1.0, np.nan, np.nan])
    return Series(STEPS, 1e9 + STEPS, {"loss": loss, "step": np.zeros(3)}, {"loss": GAP, "step": ~np.zeros(3, bool)})


def layers(kind: str = "f4") -> Layers:
    values = np.array([[1, np.inf], [np.nan, 0.1], [np.nan, -0.0]], kind)
    present = np.array([[True, True], [False, True], [True, True]])
    return Layers(STEPS, 1e9 + STEPS, ["step", "b"], values, present)


def test_series_as_tables() -> None:
    table = series().to_pandas()
    assert table.index.tolist() == [3, 4, 9] and table.index.name == "step"
    assert str(table["loss"].tolist()) == "[1.0, nan, nan]"
    table = series().to_polars()
    assert table.columns == ["step_", "loss", "step"] and table["step_"].to_list() == [3, 4, 9]
    assert table["loss"].is_null().to_list() == [False, True, False] and np.isnan(table["loss"][2])


@pytest.mark.parametrize(("kind", "wanted"), [("f4", polars.Float32), ("f8", polars.Float64)])
def test_layers_as_tables(kind: str, wanted: object) -> None:
    table = layers(kind).to_pandas()
    assert table.columns.tolist() == ["step", "b"] and table["b"].tolist()[0] == np.inf
    table = layers(kind).to_polars()
    assert table.columns == ["step_", "step", "b"] and table["step"].dtype == wanted
    assert table["step"].is_null().to_list() == [False, True, False]
    assert table["b"].to_numpy().tobytes() == layers(kind)["b"].tobytes()


def test_columns_as_tables() -> None:
    low, high, mean = np.arange(3.0), np.arange(3.0) + 2, np.arange(3.0) + 1
    count = np.array([1, 2, 3])
    reduced = ReducedSeries(low, high, mean, count, count - 1, high)
    found = SeriesColumns(STEPS, STEPS + 1, {"loss": reduced})
    assert found.to_pandas()["loss.max"].tolist() == [2, 3, 4] and found.to_pandas().index.tolist() == [3, 4, 9]
    names = ["first", "last", *(f"loss.{field}" for field in ("min", "max", "mean", "count", "nonfinite", "last"))]
    assert found.to_polars().columns == names
    low, high, mean, counts = low[:, None], high[:, None], mean[:, None], count[:, None]
    layered = LayerColumns("grad_norm", STEPS, STEPS + 1, ["last"], low, high, mean, counts, counts - 1)
    assert layered.to_pandas()["last"].tolist() == [1, 2, 3]
    assert layered.to_polars("max").columns == ["first", "last_", "last"]
    assert layered.to_polars("max")["last"].to_list() == [2, 3, 4]
    assert layered["last"].count.tolist() == [1, 2, 3]


def test_records_are_lists_and_tables() -> None:
    @dataclass
    class Point:
        x: int
        label: str | None

    found = Records([Point(1, None), Point(2, "b")])
    assert found[1].x == 2 and found.to_pandas()["x"].tolist() == [1, 2]
    assert found.to_polars()["label"].to_list() == [None, "b"] and Records[Point]().to_pandas().empty


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_missing_library_is_named_with_its_command(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"this needs {library}: pip install {library}"):
        getattr(series(), f"to_{library}")()
