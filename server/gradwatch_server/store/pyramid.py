"""The pyramid: what is kept of every bucket of 64, 256, 1024, ... steps, and its rows as they are stored.

A row holds some buckets of one level, of series known by name (scalars) or by number (layers, modules). It is written
"fresh", all series of the few buckets just finished, and once a group of 64 buckets is whole its fresh rows are packed
into others of 64 buckets x 64 series, which is what a query that wants many columns of few series likes to read. Each
number is so written twice. Where both kinds hold a bucket, the fresh one is newer.

Minima, maxima and last values are exact, and means are rounded to the type of the values (float32 as a rule). Of the
moments of float32 values 12 bits of mantissa stay, which is 1 part in 8192, at half the bytes. Modules have no moments,
and only named series a last value; how many rows a bucket has beyond the finite, NaN and infinite values of a layer is
how often it was absent.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from . import codec
from .aggregate import Aggregate, merge
from .decode import Steps
from .moments import Moments, merge_moments

FANOUT: Final = 4
FINEST: Final = 64
LEVELS: Final = tuple(FINEST * FANOUT**power for power in range(10))  # up to 16.8 million steps in a bucket
GROUP: Final = 64  # buckets of a packed row

# The `part` of a row: two with names in them, then layers and modules by number: a fresh row, packed ones by CHUNK.
SCALARS: Final = 0
USER: Final = 1
LAYERS: Final = 16
MODULES: Final = 4096
END: Final = 8192
CHUNK: Final = 64

_HEAD: Final = struct.Struct("<7I")  # lengths: names and buckets as JSON, then six tables
_NEVER: Final = np.uint32(0xFFFFFFFF)
_ROUGH: Final = np.uint32(0xFFFFF800)  # 12 bits of a float32's 23 bits of mantissa, ...
_HALF: Final = np.uint32(0x400)  # ... to the nearest


@dataclass(frozen=True, slots=True)
class Buckets:
    """Buckets of one level. ``names``: the series, or None where they are numbered from ``start`` on."""

    buckets: Steps  # step // level; rising
    values: Aggregate
    moments: Moments | None
    names: list[str] | None
    start: int = 0

    def series(self, part: slice) -> Buckets:
        """Some numbered series."""
        moments = None if self.moments is None else self.moments.series(part)
        return Buckets(self.buckets, self.values.series(part), moments, None, self.start + part.start)

    def pick(self, rows: Any) -> Buckets:
        """Some of the buckets."""
        moments = None if self.moments is None else self.moments.columns(rows)
        return Buckets(self.buckets[rows], self.values.columns(rows), moments, self.names, self.start)

    def every(self, factor: int, phase: int) -> Buckets:
        """Those buckets whose number leaves ``phase`` when divided by ``factor``, numbered as the wider ones are."""
        rows = np.flatnonzero(self.buckets % factor == phase)
        if len(rows) and rows[-1] - rows[0] == (len(rows) - 1) * factor:
            found = self.pick(slice(int(rows[0]), int(rows[-1]) + 1, factor))
        else:
            found = self.pick(rows)
        return Buckets(found.buckets // factor, found.values, found.moments, found.names, found.start)

    def coarser(self, factor: int) -> Buckets:
        """Buckets ``factor`` times as wide."""
        wide = self.buckets // factor
        moments = None if self.moments is None else merge_moments(wide, self.moments)
        columns, values = merge(wide, self.values)
        return Buckets(columns, values, moments, self.names, self.start)


def pack(some: Buckets, level: int, dtype: Any) -> bytes:
    """A row. ``dtype``: "<f4" or "<f8", which holds the values exactly."""
    values = some.values
    head: dict[str, Any] = {"buckets": some.buckets.tolist()}
    head |= {"start": some.start} if some.names is None else {"names": some.names}
    mean = _mean(values.total, values.count, dtype)
    parts = [
        json.dumps(head, separators=(",", ":")).encode(),
        _table([_narrow(values.minimum, dtype), _narrow(values.maximum, dtype), _narrow(mean, dtype)]),
        _table([values.count, values.nonfinite]),
        *(_last_tables(some, level, dtype) if some.names is not None else (b"", b"")),
        *_moment_tables(some, dtype),
    ]
    return _HEAD.pack(*map(len, parts)) + b"".join(parts)


def _last_tables(some: Buckets, level: int, dtype: Any) -> tuple[bytes, bytes]:
    last, last_step = some.values.latest()
    offset = last_step - some.buckets[:, None] * level
    return _table([_narrow(last, dtype)]), _table([np.where(last_step < 0, _NEVER, offset).astype(np.uint32)])


def _moment_tables(some: Buckets, dtype: Any) -> tuple[bytes, bytes]:
    moments, count = some.moments, some.values.count
    if moments is None:
        return b"", b""
    exact = np.dtype(dtype).itemsize == moments.squares.itemsize
    root = moments.squares if exact else np.sqrt(_mean(moments.squares, count, dtype))
    logs = _mean(moments.logs, moments.positive, dtype)
    rough = [_rough(_narrow(root, dtype)), _rough(_narrow(logs, dtype))]
    return _table(rough), _table([count - moments.positive, moments.nan])


def _mean(total: NDArray[Any], count: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """What is stored of a sum. Of float64 values the sum itself, because a mean that is taken from its row, summed and
    written again would not always be the same; of float32 values it is, as float64 holds mean x count exactly."""
    if np.dtype(dtype).itemsize == total.itemsize:
        return total
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count > 0, total / count, 0.0)


def unpack(data: bytes, level: int, *, whole: bool = False) -> Buckets:
    """A row of ``pack``; if not ``whole`` then without its moments."""
    sizes = _HEAD.unpack_from(data)
    ends = np.cumsum((_HEAD.size, *sizes)).tolist()
    view = memoryview(data)
    parts = [view[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]
    head = json.loads(bytes(parts[0]))
    buckets = np.array(head["buckets"], np.int64)
    minimum, maximum, mean = _planes(parts[1], 3)
    count, nonfinite = _planes(parts[2], 2)
    latest = latest_step = None
    if sizes[3]:
        latest = _planes(parts[3], 1)[0]
        offset = _planes(parts[4], 1)[0]
        latest_step = np.where(offset == _NEVER, -1, offset.astype(np.int64) + buckets[:, None] * level)
    values = Aggregate(minimum, maximum, _sum(mean, count), count, nonfinite, latest, latest_step)
    found = _moments(parts, count) if whole and sizes[5] else None
    return Buckets(buckets, values, found, head.get("names"), head.get("start", 0))


def _moments(parts: Sequence[memoryview], count: NDArray[Any]) -> Moments:
    root, logs = _planes(parts[5], 2)
    others, nan = _planes(parts[6], 2)
    positive = count - others
    squares = root if root.dtype == np.float64 else np.square(root, dtype=np.float64) * count
    return Moments(squares, _sum(logs, positive), positive, nan)


def _sum(mean: NDArray[Any], count: NDArray[Any]) -> NDArray[np.float64]:
    return mean if mean.dtype == np.float64 else mean.astype(np.float64) * count


def kind_of(part: int) -> int:
    """SCALARS, USER, LAYERS or MODULES, whichever a row's part belongs to."""
    return part if part <= USER else LAYERS if part < MODULES else MODULES


def trimmed(some: Buckets) -> Buckets:
    """Without the numbered series at the end that hold nothing, so that it tells not who was known by when."""
    filled = np.flatnonzero(((some.values.count > 0) | (some.values.nonfinite > 0)).any(axis=0))
    return some.series(slice(0, int(filled[-1]) + 1 if len(filled) else 0))


def chunks(some: Buckets) -> Iterator[tuple[int, Buckets]]:
    """Numbered series in pieces of CHUNK, each with its number; pieces that hold nothing are left out."""
    for start in range(0, some.values.count.shape[1], CHUNK):
        piece = trimmed(some.series(slice(start, start + CHUNK)))
        if piece.values.count.shape[1]:
            yield start // CHUNK, piece


def joined(parts: Sequence[Buckets]) -> Buckets:
    """Several ``whole`` rows as one: each bucket of each series once, of two that hold it the later one.

    All by name, or all by number and then from 0 on.
    """
    buckets = np.unique(np.concatenate([part.buckets for part in parts]))
    names = None
    if parts[0].names is not None:
        names = sorted({name for part in parts for name in part.names or ()})
        places = {name: at for at, name in enumerate(names)}
    width = max(part.start + part.values.count.shape[1] for part in parts) if names is None else len(names)
    dtype = np.result_type(*(part.values.minimum.dtype for part in parts))
    values = Aggregate.empty(len(buckets), width, dtype, last=names is not None)
    moments = None if parts[0].moments is None else Moments.none(len(buckets), width)
    for part in parts:
        count = part.values.count.shape[1]
        here = [places[name] for name in part.names or ()] if names else range(part.start, part.start + count)
        at = np.ix_(np.searchsorted(buckets, part.buckets), np.array(here, np.intp))
        for mine, theirs in zip(_fields(values, moments), _fields(part.values, part.moments), strict=True):
            mine[at] = theirs
    return Buckets(buckets, values, moments, names)


def _fields(values: Aggregate, moments: Moments | None) -> list[NDArray[Any]]:
    kept = [field for field in values.fields() if field is not None]
    return kept + (moments.fields() if moments else [])


def _table(planes: Sequence[NDArray[Any]]) -> bytes:
    # Series by series, so that what resembles each other lies together.
    return codec.encode(np.concatenate([np.ascontiguousarray(plane.T) for plane in planes]))


def _planes(data: memoryview, count: int) -> list[NDArray[Any]]:
    table = codec.decode(data)
    return [plane.T for plane in table.reshape(count, -1, table.shape[1])]


def _narrow(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    wanted = np.dtype(dtype)
    if values.dtype == wanted:
        return values
    if wanted.itemsize < values.itemsize:
        # A finite norm of a module may lie beyond float32; infinity would call it non-finite.
        most = np.finfo(wanted).max
        values = np.where(np.isfinite(values), np.clip(values, -most, most), values)
    return values.astype(wanted)


def _rough(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype != np.float32:
        return values
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + _HALF) & _ROUGH).view(np.float32)
