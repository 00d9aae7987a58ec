"""What was sampled of single layers, as the outside gets it."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from gradwatch import frames

from ..served import Served
from ..stream import Writer, bins, columns

JSON = {"accept": "application/json"}


@pytest.fixture
def sampled(server: Served, writer: Writer) -> Writer:
    """Eight steps of three layers: weights at every other step, ratios never, histograms at steps 0 and 5."""
    some = [(place, step, 10.0 * place + step) for step in (0, 2, 4, 6) for place in (0, 1)]
    some[3] = (1, 2, float("nan"))
    with server.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps(np.arange(8)) + writer.samples("weight_norm", some))
        socket.store(writer, writer.histograms([(0, 0, [1.0, 0.0]), (0, 5, [3.0, 1e-20]), (1, 5, [9.0])]))
    return writer


def test_a_sampled_metric_has_the_shape_of_the_norms(server: Served, sampled: Writer) -> None:
    path = f"/api/runs/{sampled.run}/layers?columns=4"
    norms = server.get(path, headers=JSON)
    found = server.get(path + "&metric=weight_norm", headers=JSON)
    assert found.keys() == norms.keys() and found["columns"] == norms["columns"]
    assert (norms["metric"], found["metric"], found["truncated"]) == ("grad_norm", "weight_norm", False)
    assert found["layers"] == sampled.layers == norms["layers"]
    assert found["max"] == [[0, 10, None], [2, None, None], [4, 14, None], [6, 16, None]] == found["mean"]
    assert found["count"] == [[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]]
    assert found["nonfinite"] == [[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    whole = server.get(f"/api/runs/{sampled.run}/layers?columns=1&metric=weight_norm&match=a.*", headers=JSON)
    assert (whole["layers"], whole["min"]) == (["a.weight", "a.bias"], [[0, 10]])
    assert whole["mean"] == [[3, pytest.approx(40 / 3)]]
    never = server.get(path + "&metric=update_ratio", headers=JSON)
    assert never["columns"] == norms["columns"] and never["count"] == [[0] * 3] * 4 and never["max"] == [[None] * 3] * 4


def test_as_a_frame_its_columns_are_named_by_the_metric(server: Served, sampled: Writer) -> None:
    answer = httpx.get(f"{server.url}/api/runs/{sampled.run}/layers?metric=weight_norm&columns=1")
    frame = frames.decode(answer.content)
    assert frame.header["metric"] == "weight_norm" and frame.header["truncated"] is False
    found = columns(frame)
    assert found["weight_norm.count"].tolist() == [[4, 3, 0]] and found["weight_norm.max"][0, :2].tolist() == [6, 16]
    assert np.isnan(found["weight_norm.max"][0, 2]) and found["weight_norm.nonfinite"].tolist() == [[0, 1, 0]]


def test_histograms_of_a_layer(server: Served, sampled: Writer) -> None:
    path = f"/api/runs/{sampled.run}/histograms?layer=a.weight"
    found = server.get(path)
    assert len(found["columns"]) == 8 and found["lowest"] == -48 and found["truncated"] is False
    assert found["samples"] == [1, 0, 0, 0, 0, 1, 0, 0] and found["elements"] == [2, 0, 0, 0, 0, 2, 0, 0]
    assert found["zero"] == [1, *[0] * 7] and found["nonfinite"] == [0] * 8
    assert found["counts"][5] == bins(np.array([3.0, 1e-20])) and len(found["counts"][1]) == 66
    (whole,) = server.get(path + "&columns=1&first=1")["counts"]
    assert whole == bins(np.array([1.0, 3.0, 1e-20])), "columns are whole, whatever the range"
    assert server.get(f"/api/runs/{sampled.run}/histograms?layer=b.weight&columns=1")["elements"] == [0]


def test_a_run_without_a_step_has_no_columns(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening())
    found = server.get(f"/api/runs/{writer.run}/layers?metric=weight_norm", headers=JSON)
    assert (found["columns"], found["layers"], found["max"]) == ([], writer.layers, [])
    assert server.get(f"/api/runs/{writer.run}/histograms?layer=a.bias")["counts"] == []
    assert httpx.get(f"{server.url}/api/runs/{writer.run}/layers?metric=weight_norm").status_code == 200


def test_a_frame_that_cites_an_unknown_table_is_refused_by_name(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps([0]))
        socket.send(writer.samples("weight_norm", [(0, 0, 1.0)], table="0" * 16))
        refusal = socket.until(frames.Kind.REFUSE).header
        assert (refusal["code"], refusal["seq"]) == ("table", writer.seq - 1)
        assert "samples frame cites a layer table that has not arrived" in refusal["message"]
