"""What a client reads, as NumPy arrays; ``to_pandas`` and ``to_polars`` make tables of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Steps = NDArray[np.int64]
Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
Field = Literal["min", "max", "mean", "count", "nonfinite"]

T = TypeVar("T")


class Records(list[T]):
    """A list of dataclasses that is a table, too: a row for each, a column for each field."""

    def to_pandas(self) -> Any:
        return _library("pandas").DataFrame(self._rows())

    def to_polars(self) -> Any:
        return _library("polars").DataFrame(self._rows(), infer_schema_length=None)

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {field.name: getattr(one, field.name) for field in dataclasses.fields(one) if field.repr}  # type: ignore[arg-type]
            for one in self
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Scalar series at every step. ``values`` are NaN where nobody gave one; ``present`` tells these from real NaNs."""

    steps: Steps
    times: Floats  # seconds since 1970; NaN where only logged values are
    values: dict[str, Floats]
    present: dict[str, Mask]

    @property
    def names(self) -> list[str]:
        return list(self.values)

    def __getitem__(self, name: str) -> Floats:
        return self.values[_known(name, self.values)]

    def __len__(self) -> int:
        return len(self.steps)

    def to_pandas(self) -> Any:
        """A column for each series, by step."""
        pandas = _library("pandas")
        return pandas.DataFrame(self.values, index=pandas.Index(self.steps, name="step"))

    def to_polars(self) -> Any:
        """``step`` and a column for each series; null where nobody gave a value, NaN where it was NaN."""
        return _polars({"step": self.steps}, self.values, self.present)


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """One series or layer over columns; min, max and mean are those of finite values, NaN where there are none."""

    min: Floats
    max: Floats
    mean: Floats
    count: Counts
    nonfinite: Counts


@dataclass(frozen=True, slots=True, eq=False)
class ReducedSeries(Reduced):
    """One series over columns. ``last``: the last value in each, finite or not."""

    last: Floats


@dataclass(frozen=True, slots=True, eq=False)
class SeriesColumns:
    """Scalar series reduced to columns of the steps from ``first`` to ``last``, ends included."""

    first: Steps
    last: Steps
    values: dict[str, ReducedSeries]

    @property
    def names(self) -> list[str]:
        return list(self.values)

    def __getitem__(self, name: str) -> ReducedSeries:
        return self.values[_known(name, self.values)]

    def __len__(self) -> int:
        return len(self.first)

    def to_pandas(self) -> Any:
        """Columns such as ``loss.max``, by the first step of each column of steps."""
        pandas = _library("pandas")
        return pandas.DataFrame(self._flat(), index=pandas.Index(self.first, name="first"))

    def to_polars(self) -> Any:
        """``first``, ``last`` and columns such as ``loss.max``."""
        return _polars({"first": self.first, "last": self.last}, self._flat(), {})

    def _flat(self) -> dict[str, NDArray[Any]]:
        return {
            f"{name}.{field.name}": getattr(reduced, field.name)
            for name, reduced in self.values.items()
            for field in dataclasses.fields(reduced)
        }


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """The norm of every layer at every step: ``values`` and ``present`` are steps x layers.

    Where ``present`` is False the layer had no gradient, and its value is NaN. The type is the one that was sent.
    """

    steps: Steps
    times: Floats
    names: list[str]
    values: Floats
    present: Mask

    def __getitem__(self, name: str) -> Floats:
        return self.values[:, self.names.index(_known(name, self.names))]

    def __len__(self) -> int:
        return len(self.steps)

    def to_pandas(self) -> Any:
        """A column for each layer, by step."""
        pandas = _library("pandas")
        return pandas.DataFrame(self.values, index=pandas.Index(self.steps, name="step"), columns=self.names)

    def to_polars(self) -> Any:
        """``step`` and a column for each layer; null where it had no gradient, NaN where its norm was NaN."""
        present = {name: self.present[:, at] for at, name in enumerate(self.names)}
        return _polars({"step": self.steps}, _by_name(self.names, self.values), present)


@dataclass(frozen=True, slots=True, eq=False)
class LayerColumns:
    """A metric of layers or modules, reduced to columns of steps: every array is columns x layers.

    min, max and mean, in float32, are those of finite values, NaN where there are none. ``truncated``: there were more
    samples than the server read.
    """

    metric: str
    first: Steps
    last: Steps
    names: list[str]
    min: Floats
    max: Floats
    mean: Floats
    count: Counts
    nonfinite: Counts
    truncated: bool = False

    def __getitem__(self, name: str) -> Reduced:
        at = self.names.index(_known(name, self.names))
        return Reduced(*(getattr(self, field.name)[:, at] for field in dataclasses.fields(Reduced)))

    def __len__(self) -> int:
        return len(self.first)

    def to_pandas(self, field: Field = "mean") -> Any:
        """One field: a column for each layer, by the first step of each column of steps."""
        pandas = _library("pandas")
        index = pandas.Index(self.first, name="first")
        return pandas.DataFrame(getattr(self, field), index=index, columns=self.names)

    def to_polars(self, field: Field = "mean") -> Any:
        """One field: ``first``, ``last`` and a column for each layer."""
        return _polars({"first": self.first, "last": self.last}, _by_name(self.names, getattr(self, field)), {})


def _known(name: str, names: Collection[str]) -> str:
    if name not in names:
        raise KeyError(f"{name!r} is not among {', '.join(names)}"[:500])
    return name


def _by_name(names: list[str], values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {name: values[:, at] for at, name in enumerate(names)}


def _polars(keys: Mapping[str, Steps], values: Mapping[str, NDArray[Any]], present: Mapping[str, Mask]) -> Any:
    polars = _library("polars")
    columns = []
    for key, steps in keys.items():
        while key in values:  # a layer may well be called "first"
            key += "_"
        columns.append(polars.Series(key, steps))
    for name, numbers in values.items():
        column = polars.Series(name, np.ascontiguousarray(numbers))
        if name in present and not present[name].all():
            nothing = polars.lit(None, column.dtype)
            mask = polars.Series("present", np.ascontiguousarray(present[name]))
            column = polars.select(polars.when(mask).then(column).otherwise(nothing).alias(name))[name]
        columns.append(column)
    return polars.DataFrame(columns)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(f"this needs {name}: pip install {name}", name=name) from None
