"""Samples as frames, read back by the frame's own reader."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gradwatch import frames
from gradwatch.frames import Kind
from gradwatch.measure.magnitude import magnitudes
from gradwatch.measure.sample import Metric, Sample
from gradwatch.measure.update_ratio import ABSENT
from gradwatch.sample_frames import sample_frames

DTYPES = {"u4": np.uint32, "i8": np.int64, "f4": np.float32}


def sample(step: int, metric: Metric, values: dict[int, float]) -> Sample:
    return Sample(step, metric, np.array(list(values), np.int64), torch.tensor(list(values.values())))


def read(samples: list[Sample]) -> list[tuple[Kind, dict[str, Any], dict[str, npt.NDArray[Any]]]]:
    found = []
    for seq, (kind, header, body) in enumerate(sample_frames(samples, "cafe")):
        data = frames.encode(kind, {"writer": "w", "seq": seq, **header}, body)
        assert len(data) <= 128 << 10
        frame = frames.decode(data)
        columns = frames.columns_from_json(frame.header["columns"])
        parts = frames.split(frame.body, columns, frame.header["rows"])
        arrays = {
            column.name: np.frombuffer(parts[column.name], DTYPES[column.dtype]).reshape(-1, column.width).squeeze(1)
            if column.width == 1
            else np.frombuffer(parts[column.name], DTYPES[column.dtype]).reshape(-1, column.width)
            for column in columns
        }
        found.append((frame.kind, frame.header, arrays))
    return found


def test_samples_of_one_metric_share_a_frame() -> None:
    (one, other) = read(
        [
            sample(10, "weight_norm", {3: 1.5, 0: float("nan")}),
            sample(20, "layer_coefficient", {1: 0.5}),
            sample(30, "weight_norm", {1: float("inf")}),
        ]
    )
    assert (one[0], one[1]["metric"], one[1]["table"], one[1]["rows"]) == (Kind.SAMPLES, "layer_coefficient", "cafe", 1)
    assert {name: column.tolist() for name, column in one[2].items()} == {"place": [1], "step": [20], "value": [0.5]}
    assert other[1]["metric"] == "weight_norm" and other[1]["columns"] == [
        ["place", "u4", 1],
        ["step", "i8", 1],
        ["value", "f4", 1],
    ]
    assert other[2]["place"].tolist() == [3, 0, 1] and other[2]["step"].tolist() == [10, 10, 30]
    assert str(other[2]["value"].tolist()) == "[1.5, nan, inf]"


def test_a_ratio_that_does_not_exist_has_no_row() -> None:
    ((_, header, columns),) = read([sample(1, "update_ratio", {0: 0.0, 1: ABSENT, 2: float("nan")})])
    assert header["rows"] == 2 and columns["place"].tolist() == [0, 2]
    assert read([sample(1, "update_ratio", {0: ABSENT})]) == []


def test_a_histogram_is_read_back() -> None:
    gradient = torch.tensor([0.0, 2.0**-50, 2.0**-48, 0.75, -1.0, 2.0**16, float("nan"), -float("inf")])
    ((kind, header, columns),) = read([Sample(5, "grad_histogram", np.array([9]), magnitudes([gradient]))])
    assert (kind, header["lowest"], header["metric"]) == (Kind.HISTOGRAM, -48, "grad_histogram")
    assert [name for name, _, _ in header["columns"]] == ["place", "step", "elements", "zero", "nonfinite", "counts"]
    scalars = {name: columns[name].tolist() for name in ("place", "step", "elements", "zero", "nonfinite")}
    assert scalars == {"place": [9], "step": [5], "elements": [8], "zero": [1], "nonfinite": [2]}
    counts = columns["counts"][0]
    assert {at: int(counts[at]) for at in np.nonzero(counts)[0]} == {0: 1, 1: 1, 48: 1, 49: 1, 65: 1}


def test_many_rows_are_cut_into_frames_that_stay_small() -> None:
    histogram = magnitudes([torch.ones(3)] * 1000)
    places = np.arange(1000)
    found = read([Sample(step, "grad_histogram", places, histogram) for step in range(3)])
    assert len(found) > 5
    assert np.concatenate([columns["step"] for _, _, columns in found]).tolist() == [0] * 1000 + [1] * 1000 + [2] * 1000
    assert np.concatenate([columns["place"] for _, _, columns in found]).tolist() == [*range(1000)] * 3
    assert all((columns["counts"].sum(1) == 3).all() for _, _, columns in found)
    values = [sample(step, "weight_norm", dict.fromkeys(range(10_000), 1.0)) for step in range(2)]
    assert sum(header["rows"] for _, header, _ in read(values)) == 20_000


def test_nothing_makes_no_frame() -> None:
    assert read([]) == []
