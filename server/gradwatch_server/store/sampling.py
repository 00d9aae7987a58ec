"""What was sampled of single layers, as columns. It has no roll-up, so a query reads a bounded part of its frames."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from gradwatch.frames import Frame
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncEngine

from .aggregate import Aggregate, reduce_rows
from .decode import Steps
from .reading import Books
from .registry import LayerBook
from .sample_frames import BINS, SampleRows, decode_samples, joined, latest, stored_kind
from .sample_reading import load_samples
from .views import Segment, View

# What is read for one answer: some tenths of a second.
MOST_FRAMES: Final = 2_000
MOST_BYTES: Final = 16 << 20
MOST_HISTOGRAM_BYTES: Final = 64 << 20  # of which only the rows of one layer are looked at

Counts = NDArray[np.int64]


@dataclass(slots=True)
class Sampled:
    """What a view holds of one metric: for each of its segments the rows, and the names of the writer's layers."""

    parts: list[tuple[SampleRows, list[str]]] = field(default_factory=list)
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Histograms:
    """One layer's histograms, added up over each column of ``width`` steps."""

    width: int
    first: Steps
    samples: Counts  # how many were added up
    elements: Counts
    zero: Counts
    nonfinite: Counts
    counts: Counts  # columns x BINS
    truncated: bool

    @property
    def last(self) -> Steps:
        """The columns' last steps."""
        return self.first + (self.width - 1)


async def load(
    engine: AsyncEngine, books: Books, view: View, metric: str, steps: tuple[int, int], layer: str | None = None
) -> Sampled:
    """What a view holds of a metric (of one layer) in steps from..to; about MOST_FRAMES are read."""
    found = Sampled()
    frames_left, bytes_left = MOST_FRAMES, MOST_BYTES if layer is None else MOST_HISTOGRAM_BYTES
    # The shortest first, so that what they leave over of their share goes to the longer ones.
    inside = sorted(_within(view, *steps), key=lambda segment: segment.last - segment.first)
    for done, part in enumerate(inside):
        share = len(inside) - done
        most = (max(1, frames_left // share), max(1, bytes_left // share))
        some, cut = await load_samples(engine, part.stream, stored_kind(metric), (part.first, part.last), most)
        found.truncated |= cut
        frames_left -= len(some)
        bytes_left -= sum(frame.size for frame in some)
        book = await books.for_frames(part.stream.id, some)
        rows = await asyncio.to_thread(_rows_of, some, book, part, layer)
        if rows is not None:
            found.parts.append((rows, [known.name for known in book.layers]))
    return found


def _within(view: View, first: int, last: int) -> list[Segment]:
    cut = [Segment(s.stream, max(first, s.first), min(last, s.last)) for s in view.segments]
    return [segment for segment in cut if segment.first <= segment.last]


def _rows_of(found: Sequence[Frame], book: LayerBook, part: Segment, layer: str | None) -> SampleRows | None:
    """What frames in seq order hold of a segment."""
    wanted = None if layer is None else book.positions.get(layer, -1)
    pieces = []
    for frame in found:
        rows = decode_samples(frame, book.tables[frame.header["table"]])
        inside = (rows.steps >= part.first) & (rows.steps <= part.last)
        inside = inside if wanted is None else inside & (rows.layers == wanted)
        pieces.append(rows if inside.all() else rows.take(inside))
    return joined(pieces) if pieces else None


def columns_of(view: View, first: int, last: int, width: int) -> Steps:
    """The columns (step // width) that hold a step of the view from first to last."""
    ranges = [np.arange(s.first // width, s.last // width + 1) for s in _within(view, first, last)]
    return np.unique(np.concatenate(ranges)).astype(np.int64) if ranges else np.zeros(0, np.int64)


def reduce_samples(found: Sampled, names: Sequence[str], columns: Steps, width: int) -> Aggregate:
    """Columns x layers of sampled values, over as many steps as were sampled; ``names``: the run's layers."""
    wide = Aggregate.empty(len(columns), len(names), last=False)
    index = {name: at for at, name in enumerate(names)}
    parts = [rows.numbered(np.array([index.get(name, -1) for name in own], np.intp)) for rows, own in found.parts]
    rows = latest(joined(parts)) if parts else None
    if rows is None or not len(rows.steps):
        return wide
    layers, steps = rows.layers, rows.steps
    # Numbered by layer and then by column, so that they rise.
    cells = layers * len(columns) + np.searchsorted(columns, steps // width)
    filled, reduced = reduce_rows(cells, rows.columns["value"][:, None], None, 1, last=False)
    layer, column = np.divmod(filled, len(columns))
    for mine, theirs in zip(wide.fields(), reduced.fields(), strict=True):
        if mine is not None and theirs is not None:
            mine[column, layer] = theirs[:, 0]
    return wide


def add_histograms(found: Sampled, columns: Steps, width: int) -> Histograms:
    """One layer's histograms, those of each column added up."""
    count = len(columns)
    shapes = {"elements": (count,), "zero": (count,), "nonfinite": (count,), "counts": (count, BINS)}
    sums: dict[str, Counts] = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
    samples = np.zeros(count, np.int64)
    for rows in (latest(rows) for rows, _ in found.parts):
        places = np.searchsorted(columns, rows.steps // width)
        np.add.at(samples, places, 1)
        for name, total in sums.items():
            np.add.at(total, places, rows.columns[name].astype(np.int64))
    return Histograms(width, columns * width, samples, truncated=found.truncated, **sums)
