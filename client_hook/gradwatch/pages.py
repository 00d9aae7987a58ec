"""A server's answers as arrays: frames bit by bit, JSON with its spelled-out numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gradwatch import frames
from gradwatch.fetch import ClientError, Fetcher
from gradwatch.frames import Frame, FrameError
from gradwatch.measurements import LayerColumns, Layers, Reduced, ReducedSeries, Series, SeriesColumns

_DTYPES: Final = {"u1": "u1", "u4": "<u4", "i8": "<i8", "f4": "<f4", "f8": "<f8"}
_METRIC: Final = "grad_norm"


def read_series(fetcher: Fetcher, path: str, first: int | None, query: Mapping[str, Any]) -> Series:
    """Every step, page by page. A series that has come since the first one is left out."""
    names: list[str] = []
    parts: list[dict[str, NDArray[Any]]] = []
    for frame in _pages(fetcher, path, first, query):
        names = names or frame.header["series"]
        parts.append(_columns(frame))
    joined = _joined(parts)
    values = {name: joined[f"{name}.value"] for name in names}
    present = {name: numbers.view(np.uint64) != frames.MISSING_BITS for name, numbers in values.items()}
    return Series(joined["step"], joined["time"], values, present)


def read_layers(fetcher: Fetcher, path: str, first: int | None, query: Mapping[str, Any], names: list[str]) -> Layers:
    """Every step of the layers ``names``, page by page. A layer that has come since is left out."""
    parts = []
    for frame in _pages(fetcher, path, first, query):
        columns = _columns(frame)
        if f"{_METRIC}.value" in columns:
            parts.append(_layer_part(columns, frame.header["layers"], len(names)))
    if not parts:
        none = np.zeros((0, len(names)))
        return Layers(np.zeros(0, np.int64), np.zeros(0), names, none.astype(np.float32), none.astype(bool))
    steps, times, values, present = (np.concatenate(some) for some in zip(*parts, strict=True))
    return Layers(steps, times, names, values, present)


def _layer_part(columns: Mapping[str, NDArray[Any]], layers: int, wanted: int) -> tuple[NDArray[Any], ...]:
    rows = len(columns["step"])
    values = columns[f"{_METRIC}.value"].reshape(rows, layers)[:, :wanted].copy()
    bits = columns["absent"].reshape(rows, -1)
    present = np.unpackbits(bits, axis=1, count=layers, bitorder="little")[:, :wanted] == 0
    values[~present] = np.nan
    return columns["step"], columns["time"], values, present


def series_columns(said: Mapping[str, Any]) -> SeriesColumns:
    """Series over columns, from their JSON."""
    edges = said["columns"]
    values = {name: _reduced(some) for name, some in said["series"].items()}
    first, last = (np.array([column[end] for column in edges], np.int64) for end in ("first", "last"))
    return SeriesColumns(first, last, values)


def _reduced(some: Mapping[str, Sequence[Any]]) -> ReducedSeries:
    low, high, mean, last = (_numbers(some[field]) for field in ("min", "max", "mean", "last"))
    count, nonfinite = (np.array(some[field], np.int64) for field in ("count", "nonfinite"))
    return ReducedSeries(low, high, mean, count, nonfinite, last)


def layer_columns(data: bytes) -> tuple[LayerColumns, int]:
    """A metric over columns, without the layers' names; and how many layers there are."""
    found = list(_frames(data))
    header = found[0].header
    metric, layers = header["metric"], header["layers"]
    joined = _joined([_columns(frame) for frame in found])
    shape = (len(joined["first"]), layers)
    nothing = np.zeros(0, "f4")  # a frame of no layers has no columns of them
    low, high, mean, count, nonfinite = (
        joined.get(f"{metric}.{field.name}", nothing).reshape(shape) for field in dataclasses.fields(Reduced)
    )
    counts = count.astype(np.int64), nonfinite.astype(np.int64)
    return LayerColumns(
        metric, joined["first"], joined["last"], [], low, high, mean, *counts, truncated=header["truncated"]
    ), layers


def _pages(fetcher: Fetcher, path: str, first: int | None, query: Mapping[str, Any]) -> Iterator[Frame]:
    while True:
        page = list(_frames(fetcher.frames(path, first=first, columns=0, **query)))
        yield from page
        first = page[-1].header["next"]
        if first is None:
            return


def _frames(data: bytes) -> Iterator[Frame]:
    try:
        yield from frames.decode_all(data)
    except FrameError as error:
        raise ClientError(f"the server's answer cannot be read: {error}") from None


def _columns(frame: Frame) -> dict[str, NDArray[Any]]:
    schema = frames.columns_from_json(frame.header["columns"])
    parts = frames.split(frame.body, schema, frame.header["rows"])
    return {column.name: np.frombuffer(parts[column.name], _DTYPES[column.dtype]) for column in schema}


def _joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _numbers(items: Sequence[Any]) -> NDArray[np.float64]:
    """Numbers of JSON: non-finite ones are strings there, and null where there is none is NaN here."""
    return np.array([np.nan if item is None else float(item) for item in items], np.float64)
