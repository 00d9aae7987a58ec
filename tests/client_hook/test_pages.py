"""Answers as arrays: what JSON spells out, and what cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
from gradwatch import frames
from gradwatch.fetch import ClientError, Fetcher
from gradwatch.frames import Kind
from gradwatch.pages import layer_columns, read_series, series_columns

from tests.client_hook.answering import answering


def test_numbers_that_json_has_no_number_for() -> None:
    odd = [1, "NaN", "Infinity", "-Infinity", -0.0, 5e-324, None]
    edges = [{"first": n, "last": n} for n in range(7)]
    loss = {name: odd for name in ("min", "max", "mean", "last")} | dict.fromkeys(("count", "nonfinite"), [0] * 7)
    found = series_columns({"columns": edges, "series": {"loss": loss}})
    wanted = np.array([1, np.nan, np.inf, -np.inf, -0.0, 5e-324, np.nan])
    assert found["loss"].last.tobytes() == wanted.tobytes() and found.last.tolist() == list(range(7))


def page(steps: list[int], values: list[float], then: int | None, names: tuple[str, ...] = ("loss",)) -> bytes:
    columns = [["step", "i8", 1], ["time", "f8", 1], *([f"{name}.value", "f8", 1] for name in names)]
    header = {"series": names, "next": then, "rows": len(steps), "columns": columns}
    body = [np.array(steps, "<i8"), np.zeros(len(steps)), *[np.array(values, "<f8")] * len(names)]
    return frames.encode(Kind.SNAPSHOT, header, [column.tobytes() for column in body])


def test_frames_of_one_page_are_joined() -> None:
    body = page([0, 1], [0.1, np.inf], None) + page([2], [-0.0], None)
    with answering(body=body, Content_Type="application/octet-stream") as server:
        found = read_series(Fetcher(server.url, None, 5), "x", None, {})
    assert found.steps.tolist() == [0, 1, 2] and found["loss"].tobytes() == np.array([0.1, np.inf, -0.0]).tobytes()


def test_a_series_that_is_first_logged_between_two_pages_is_left_out() -> None:
    body = page([0, 1], [0.5, 0.25], None) + page([2], [0.125], None, ("loss", "accuracy"))
    with answering(body=body, Content_Type="application/octet-stream") as server:
        found = read_series(Fetcher(server.url, None, 5), "x", None, {})
    assert found.names == ["loss"] and found["loss"].tolist() == [0.5, 0.25, 0.125]


@pytest.mark.parametrize("harm", [lambda data: data[:-8], lambda data: data[:-8] + b"\x01" * 8, lambda data: b"x" * 99])
def test_a_damaged_answer_is_no_answer(harm: object) -> None:
    damaged = harm(page([0], [1.0], None))  # type: ignore[operator]
    with (
        answering(body=damaged, Content_Type="application/octet-stream") as server,
        pytest.raises(ClientError, match="the server's answer cannot be read"),
    ):
        read_series(Fetcher(server.url, None, 5), "x", None, {})


def test_columns_of_no_layer() -> None:
    columns = [["first", "i8", 1], ["last", "i8", 1]]
    header = {"metric": "grad_norm", "layers": 0, "truncated": False, "rows": 2, "columns": columns}
    found, layers = layer_columns(frames.encode(Kind.SNAPSHOT, header, [np.arange(2).tobytes()] * 2))
    assert layers == 0 and found.max.shape == (2, 0) and found.last.tolist() == [0, 1]
