"""Roll-up buckets as they are stored: which series stand in which row, and what a row's bytes mean."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .aggregate import BYTES_PER_SERIES, Aggregate, concatenate, merge, pack, reduce_rows, unpack
from .decode import MISSING_BITS, ScalarRows, StepRows, Steps
from .modules import Modules, module_norms

FANOUT: Final = 4
LEVELS: Final = tuple(64 * FANOUT**power for power in range(10))  # up to 16.8 million steps in a bucket

# The `part` of a row: two rows with names in them, then layers and modules by number, CHUNK of them to a row.
SCALARS: Final = 0
USER: Final = 1
LAYERS: Final = 16
MODULES: Final = 4096
CHUNK: Final = 256

_NAMES: Final = struct.Struct("<I")


@dataclass(slots=True)
class Named:
    """Columns of series known by name (a scalar of the step frames, or one the user logged)."""

    names: list[str]
    columns: Steps  # step // width
    values: Aggregate


@dataclass(slots=True)
class Numbered:
    """Columns of series known by number (layers, or modules)."""

    columns: Steps
    values: Aggregate


def scalars_of(rows: StepRows, width: int) -> Named:
    """The scalar series of step rows, reduced."""
    names = sorted(rows.scalars)
    values = np.stack([rows.scalars[name] for name in names], axis=1) if names else np.zeros((len(rows.steps), 0))
    return Named(names, *reduce_rows(rows.steps, values, values.view(np.uint64) != MISSING_BITS, width))


def layers_of(rows: StepRows, width: int) -> Numbered:
    """The layer norms of step rows, reduced."""
    return Numbered(*reduce_rows(rows.steps, rows.layers, rows.present, width))


def modules_of_rows(rows: StepRows, modules: Modules, p: float, width: int) -> Numbered:
    """The module norms of step rows, reduced."""
    values, present = module_norms(rows.layers, rows.present, modules, p)
    return Numbered(*reduce_rows(rows.steps, values, present, width))


def user_of(parts: Sequence[ScalarRows], first: int, last: int, width: int) -> list[Named]:
    """User-logged series from frames in seq order, one result per series; only steps from first to last."""
    rows: dict[str, list[tuple[Steps, np.ndarray[tuple[int], np.dtype[np.float64]]]]] = {}
    for part in parts:
        inside = (part.steps >= first) & (part.steps <= last)
        for index in np.unique(part.series[inside]).tolist():
            mine = inside & (part.series == index)
            rows.setdefault(part.names[index], []).append((part.steps[mine], part.values[mine]))
    found = []
    for name in sorted(rows):
        steps = np.concatenate([steps for steps, _ in rows[name]])
        values = np.concatenate([values for _, values in rows[name]])
        order = np.argsort(steps, kind="stable")
        steps, values = steps[order], values[order]
        latest = np.append(steps[1:] != steps[:-1], True)  # of a step given twice the last word counts
        found.append(Named([name], *reduce_rows(steps[latest], values[latest][:, None], None, width)))
    return found


def pack_named(named: Named) -> Iterator[tuple[int, bytes]]:
    """Rows of named series: (bucket, bytes). Series that are empty in a bucket are left out of its row."""
    filled = (named.values.count > 0) | (named.values.nonfinite > 0)
    for at, bucket in enumerate(named.columns.tolist()):
        some = np.flatnonzero(filled[at])
        if len(some):
            head = json.dumps([named.names[i] for i in some]).encode()
            head += b" " * (-(len(head) + _NAMES.size) % 8)
            blob = pack(named.values.columns([at]).series(some))[0]
            yield bucket, _NAMES.pack(len(head)) + head + blob


def unpack_named(buckets: Sequence[int], blobs: Sequence[bytes]) -> list[Named]:
    """Rows of named series back into columns: one Named for each set of names that occurs."""
    heads: dict[bytes, list[int]] = {}
    for at, blob in enumerate(blobs):
        heads.setdefault(blob[: _NAMES.size + _NAMES.unpack_from(blob)[0]], []).append(at)
    return [
        Named(
            json.loads(head[_NAMES.size :]),
            np.array([buckets[at] for at in rows], np.int64),
            unpack([blobs[at][len(head) :] for at in rows]),
        )
        for head, rows in heads.items()
    ]


def pack_numbered(numbered: Numbered, part: int) -> Iterator[tuple[int, int, bytes]]:
    """Rows of numbered series: (part, bucket, bytes), CHUNK series to a row."""
    series = numbered.values.count.shape[1]
    for start in range(0, series, CHUNK):
        blobs = pack(numbered.values.series(slice(start, start + CHUNK)))
        for bucket, blob in zip(numbered.columns.tolist(), blobs, strict=True):
            yield part + start // CHUNK, bucket, blob


def combine_named(parts: Sequence[Named]) -> Named:
    """Several Named over any columns and names into one, each column once, names in sorted order."""
    names = sorted({name for part in parts for name in part.names})
    index = {name: at for at, name in enumerate(names)}
    pieces = []
    for part in parts:
        wide = Aggregate.empty(len(part.columns), len(names))
        wide.put(range(len(part.columns)), [index[name] for name in part.names], part.values)
        pieces.append(Numbered(part.columns, wide))
    joined = combine_numbered(pieces, len(names))
    return Named(names, joined.columns, joined.values)


def combine_numbered(parts: Sequence[Numbered], series: int) -> Numbered:
    """Several Numbered into one with each column once; a later part's column counts as later in step order."""
    if not parts:
        return Numbered(np.zeros(0, np.int64), Aggregate.empty(0, series))
    columns = np.concatenate([part.columns for part in parts])
    values = concatenate([part.values for part in parts])
    if len(columns) > 1 and not (np.diff(columns) >= 0).all():
        order = np.argsort(columns, kind="stable")
        columns, values = columns[order], values.columns(order)
    return Numbered(*merge(columns, values))


def coarser(numbered: Numbered) -> Numbered:
    """Buckets of one level to those of the next."""
    return Numbered(*merge(numbered.columns // FANOUT, numbered.values))


def unpack_numbered(rows: Sequence[tuple[int, int, bytes]]) -> Numbered:
    """Rows (part, bucket, data), ordered by part and bucket, back into columns over all their series."""
    buckets = np.unique(np.array([bucket for _, bucket, _ in rows], np.int64))
    low = LAYERS if rows[0][0] < MODULES else MODULES
    most = max((part - low) * CHUNK + len(data) // BYTES_PER_SERIES for part, _, data in rows)
    wide = Aggregate.empty(len(buckets), most)
    alike: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
    for part, bucket, data in rows:
        alike.setdefault((part, len(data)), []).append((bucket, data))
    for (part, size), some in alike.items():
        at, count = (part - low) * CHUNK, size // BYTES_PER_SERIES
        places = np.searchsorted(buckets, [bucket for bucket, _ in some])
        wide.put(places, range(at, at + count), unpack([data for _, data in some]))
    return Numbered(buckets, wide)
