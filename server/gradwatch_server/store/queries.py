"""Every read of measurements; REST and the live socket share it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from . import reading, sampling, tables
from .aggregate import Aggregate
from .canvas import Canvas
from .columns import Drawing, Metric, draw, positions_of
from .cover import column_width
from .decode import LAYER_METRIC, MISSING, ScalarRows, StepRows, Steps
from .modules import modules_of
from .pyramid import FINEST
from .reading import Books, Stream
from .registry import LayerBook
from .sample_frames import HISTOGRAM
from .sampling import Histograms
from .views import Segment, View, make_view

MOST_COLUMNS: Final = 10_000
MOST_CELLS: Final = 4_000_000  # columns x layers of one answer
MOST_READ: Final = 12_000_000  # steps x layers that are looked at one by one for an answer: some tenths of a second
HEAVY_QUERIES: Final = 2  # at a time; further ones wait, so that readers never starve the writer

# The order in which the standard series appear; others follow by name.
STANDARD: Final = (
    "loss",
    "total_norm",
    "clip_coefficient",
    "threshold",
    "clipped",
    "nonfinite",
    "learning_rate",
    "loss_scale",
    "step_seconds",
    "skipped",
    "overflowed",
    "clip_cosine",
    "sample_seconds",
)


@dataclass(frozen=True, slots=True)
class RunLayer:
    """A layer in the run's own numbering."""

    index: int
    name: str
    shape: list[int]
    numel: int
    order: int


@dataclass(frozen=True, slots=True)
class Reduced:
    """Columns of a view. ``first`` are the columns' first steps; each is ``width`` steps wide."""

    width: int
    first: Steps
    names: list[str]
    scalars: Aggregate
    layer_names: list[str]
    layers: Aggregate | None
    metric: str = LAYER_METRIC
    truncated: bool = False  # not all that was sampled has been read

    @property
    def last(self) -> Steps:
        """The columns' last steps."""
        return self.first + (self.width - 1)


@dataclass(frozen=True, slots=True)
class RawPage:
    """Raw rows: one value per series and step, MISSING where none was given; ``next``: where to go on, or None."""

    steps: Steps
    times: NDArray[np.float64]
    names: list[str]
    values: NDArray[np.float64]
    next: int | None


@dataclass(frozen=True, slots=True)
class RawRows:
    """One piece of one writer's raw rows."""

    stream: Stream
    dense: StepRows
    user: ScalarRows  # by series and step
    layer_names: list[str]

    @property
    def steps(self) -> Steps:
        """All steps at which anything came."""
        return np.union1d(self.dense.steps, self.user.steps)

    def times(self) -> NDArray[np.float64]:
        """When the steps were; NaN where only logged values are."""
        steps = self.steps
        times = np.full(len(steps), np.nan)
        times[np.searchsorted(steps, self.dense.steps)] = self.dense.times
        return times

    def scalars(self, names: list[str]) -> NDArray[np.float64]:
        """Steps x names, MISSING where none was given; a column of the step frames goes before a logged one."""
        steps = self.steps
        values = np.full((len(steps), len(names)), MISSING)
        at = np.searchsorted(steps, self.dense.steps)
        index = {name: column for column, name in enumerate(names)}
        for number, name in enumerate(self.user.names):
            mine = self.user.series == number
            if name in index:
                values[np.searchsorted(steps, self.user.steps[mine]), index[name]] = self.user.values[mine]
        for name in index.keys() & self.dense.scalars.keys():
            values[at, index[name]] = self.dense.scalars[name]
        return values

    def layers(self, names: list[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Steps x layers, and where a value came."""
        steps = self.steps
        values = np.zeros((len(steps), len(names)), self.dense.layers.dtype)
        present = np.zeros(values.shape, np.bool_)
        mine = {name: at for at, name in enumerate(self.layer_names)}
        here = [(to, mine[name]) for to, name in enumerate(names) if name in mine]
        rows = np.searchsorted(steps, self.dense.steps)
        if here:
            to, source = (np.array(index, np.intp) for index in zip(*here, strict=True))
            values[np.ix_(rows, to)] = self.dense.layers[:, source]
            present[np.ix_(rows, to)] = True if self.dense.present is None else self.dense.present[:, source]
        return values, present


class Queries:
    """Reads of one store."""

    def __init__(self, engine: AsyncEngine, books: Books) -> None:
        self._engine, self._books = engine, books
        self.heavy = asyncio.Semaphore(HEAVY_QUERIES)

    async def view(self, run: str, attempt: int | None = None, rank: int | None = None) -> View:
        """The run as one line of steps."""
        c = tables.attempts.c
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(c.number, c.start_step).where(c.run == run))
            starts = {number: start for number, start in rows}
            streams = await reading.load_streams(connection, run)
        return make_view(run, streams, starts, attempt, rank)

    async def layers(self, run: str) -> list[RunLayer]:
        """The run's layers, all attempts and ranks together."""
        c = tables.run_layers.c
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(tables.run_layers).where(c.run == run).order_by(c.position))
            return [RunLayer(r.position, r.name, json.loads(r.shape), r.numel, r.execution_order) for r in rows]

    async def series_names(self, view: View) -> list[str]:
        """The scalar series of a view: the standard ones first, then what the user logged."""
        dense: set[str] = set()
        for segment in view.segments:
            book = await self._books.of(segment.stream)
            dense.update(name for table in book.tables.values() for name in table.scalars)
        c = tables.user_series.c
        async with self._engine.connect() as connection:
            logged = (await connection.scalars(select(c.name).where(c.run == view.run))).all()
        return [n for n in STANDARD if n in dense] + sorted(dense - set(STANDARD)) + sorted(set(logged) - dense)

    async def reduce(
        self, view: View, first: int, last: int, width: int, metric: Metric = "none", names: list[str] | None = None
    ) -> Reduced:
        """The columns that touch first..last, each whole, whatever the range."""
        first, last = first // width * width, last // width * width + width - 1
        wanted = await self.series_names(view) if names is None else names
        drawn = [Segment(s.stream, max(first, s.first), min(last, s.last)) for s in view.segments]
        drawn = [segment for segment in drawn if segment.first <= segment.last]
        async with self.heavy:
            books = [await self._books.of(segment.stream) for segment in drawn]
            # After the books, so that none of their layers is missing.
            layer_names = await self._layer_names(view.run, metric)
            low, high = (drawn[0].first // width, max(s.last for s in drawn) // width) if drawn else (0, -1)
            dtype = np.float64 if metric == "module" or any(book.exact for book in books) else np.float32
            canvas = Canvas(low, high, wanted, None if metric == "none" else layer_names, dtype)
            for segment, book in zip(drawn, books, strict=True):
                drawing = _drawing(segment.stream, book, width, metric, layer_names)
                await draw(canvas, self._engine, self._books, drawing, (segment.first, segment.last))
        columns, scalars, layers = await asyncio.to_thread(canvas.finished)
        return Reduced(width, columns * width, wanted, scalars, layer_names, layers)

    async def sampled(self, view: View, metric: str, first: int, last: int, width: int) -> Reduced:
        """A sampled layer metric over all columns of the view that touch first..last; blank where none was taken."""
        first, last = first // width * width, last // width * width + width - 1
        async with self.heavy:
            found = await sampling.load(self._engine, self._books, view, metric, (first, last))
        # After the frames, so that none of their layers is missing.
        names = [layer.name for layer in await self.layers(view.run)]
        columns = sampling.columns_of(view, first, last, width)
        layers = await asyncio.to_thread(sampling.reduce_samples, found, names, columns, width)
        none = Aggregate.empty(len(columns), 0)
        return Reduced(width, columns * width, [], none, names, layers, metric, found.truncated)

    async def histograms(self, view: View, layer: str, first: int, last: int, width: int) -> Histograms:
        """The histograms of one layer, added up over each column of the view that touches first..last."""
        first, last = first // width * width, last // width * width + width - 1
        async with self.heavy:
            found = await sampling.load(self._engine, self._books, view, HISTOGRAM, (first, last), layer)
        columns = sampling.columns_of(view, first, last, width)
        return await asyncio.to_thread(sampling.add_histograms, found, columns, width)

    async def _layer_names(self, run: str, metric: Metric) -> list[str]:
        if metric == "none":
            return []
        names = [layer.name for layer in await self.layers(run)]
        return modules_of(names).names if metric == "module" else names

    async def raw(self, view: View, first: int, last: int, names: list[str], limit: int) -> RawPage:
        """The steps from first to last one by one, at most about ``limit`` of them."""
        found: list[RawRows] = []
        count = 0
        async with self.heavy:
            async for _, end, rows in self.pieces(view, first, last, layers=False):
                found.append(rows)
                count += len(rows.steps)
                if count >= limit and end < last:
                    return _page(found, names, limit, end + 1)
        return _page(found, names, limit, None)

    async def pieces(
        self, view: View, first: int, last: int, *, layers: bool = True
    ) -> AsyncIterator[tuple[int, int, RawRows]]:
        """Pieces of raw rows in step order: first step, last step, rows; without ``layers`` their scalars alone."""
        for segment in view.segments:
            stream, low, high = segment.stream, max(first, segment.first), min(last, segment.last)
            found = reading.step_pieces(self._engine, self._books, stream, low, high, layers=layers)
            async for start, end, rows in found:
                user = await reading.read_user(self._engine, stream, start, end)
                book = await self._books.of(stream)
                names = [layer.name for layer in book.layers[: rows.layers.shape[1]]]
                yield start, end, RawRows(stream, rows, user, names)


def _drawing(stream: Stream, book: LayerBook, width: int, metric: Metric, wanted: list[str]) -> Drawing:
    own = [layer.name for layer in book.layers]
    modules = modules_of(own if metric == "module" else [])
    return Drawing(stream, width, metric, modules, positions_of(modules.names if metric == "module" else own, wanted))


def choose_width(first: int, last: int, columns: int, layers: int, thinned_to: int = 0) -> int:
    """The width of columns for first..last, so that neither their number nor columns x layers grow too big.

    Of many layers, columns narrower than the pyramid's finest are given where few steps are asked for; and of layers
    of steps before ``thinned_to`` none are.
    """
    width = column_width(first, last, max(1, min(columns, MOST_COLUMNS, MOST_CELLS // max(1, layers))))
    if layers and width < FINEST and (first < thinned_to or (last - first + 1) * layers > MOST_READ):
        return FINEST
    return width


def _page(found: list[RawRows], names: list[str], limit: int, then: int | None) -> RawPage:
    steps = np.concatenate([rows.steps for rows in found]) if found else np.zeros(0, np.int64)
    times = np.concatenate([rows.times() for rows in found]) if found else np.zeros(0)
    values = np.concatenate([rows.scalars(names) for rows in found]) if found else np.zeros((0, len(names)))
    if len(steps) > limit:
        then = int(steps[limit])
    return RawPage(steps[:limit], times[:limit], names, values[:limit], then)
