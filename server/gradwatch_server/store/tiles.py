"""Sealed steps: what a writer's step rows become once their block of 256 steps is past, and how they are read again.

A block is a head (steps, the seq of the frame each came in, times, scalars) and tiles of 64 layers; the rows of its
tiles are those of its head, in step order. Heads of 16 blocks are packed into one, because a reader of a scalar series
wants a million steps of it and none of the tiles. Series that the user logged lie beside the heads in the same way.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from . import codec
from .decode import MISSING, Floats, Mask, ScalarRows, StepRows, Steps

BLOCK: Final = 256  # steps
PACKED: Final = 4096  # steps of a packed head
CHUNK: Final = 64  # layers of a tile

# The `part` of a row.
HEAD: Final = 0  # packed
USER: Final = 1  # packed
FRESH_HEAD: Final = 2
FRESH_USER: Final = 3
LAYERS: Final = 16


@dataclass(frozen=True, slots=True)
class SealedRows:
    """Step rows with the seq of the frame that gave each; of two rows of one step the higher seq counts."""

    rows: StepRows
    seqs: Steps

    def take(self, rows: NDArray[Any] | slice) -> SealedRows:
        """Some of the rows."""
        return SealedRows(self.rows.take(rows), self.seqs[rows])


def pack_head(sealed: SealedRows) -> bytes:
    """Everything of the rows but the layers."""
    rows = sealed.rows
    names = sorted(rows.scalars)
    scalars = np.stack([rows.scalars[name] for name in names]) if names else np.zeros((0, len(rows.steps)))
    counted = codec.encode(np.stack([rows.steps, sealed.seqs]), "successive")
    times = codec.encode(rows.times[None], "successive")
    return _joined([_text(names), counted, times, codec.encode(scalars, "centred")])


def unpack_head(data: bytes) -> SealedRows:
    """A head as rows without layers."""
    text, counted, times, scalars = _parts(data)
    steps, seqs = codec.decode(counted)
    given = dict(zip(json.loads(bytes(text)), codec.decode(scalars), strict=True))
    none = np.zeros((len(steps), 0), np.float32)
    return SealedRows(StepRows(steps, codec.decode(times)[0], given, none, None), seqs)


def pack_layers(values: NDArray[Any], present: Mask | None) -> bytes:
    """A tile: rows x at most CHUNK layers, float32 or float64."""
    bits = b""
    if present is not None and not present.all():
        bits = codec.encode(np.packbits(present.T, axis=1, bitorder="little"))
    return _joined([bits, codec.encode(values.T, "centred")])


def unpack_layers(data: bytes) -> tuple[NDArray[Any], Mask | None]:
    """A tile as it was packed, in series-major memory; where ``present`` is None all layers were there."""
    bits, values = _parts(data)
    table = codec.decode(values).T
    if not len(bits):
        return table, None
    return table, np.unpackbits(codec.decode(bits), axis=1, count=len(table), bitorder="little").astype(np.bool_).T


def tiles_of(rows: StepRows) -> list[tuple[int, bytes]]:
    """(part, data) of all tiles of one block's rows; of layers that none of the rows has there is none."""
    found = []
    for start in range(0, rows.layers.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        present = None if rows.present is None else rows.present[:, part]
        if present is None or present.any():
            found.append((LAYERS + start // CHUNK, pack_layers(rows.layers[:, part], present)))
    return found


def pack_user(rows: ScalarRows) -> bytes:
    """Values the user logged, with their seqs."""
    counted = np.stack([rows.series.astype(np.int64), rows.steps, rows.seqs])
    values = codec.encode(np.stack([rows.times, rows.values]), "successive")
    return _joined([_text(rows.names), codec.encode(counted, "successive"), values])


def unpack_user(data: bytes) -> ScalarRows:
    """Values as they were packed."""
    text, counted, values = _parts(data)
    series, steps, seqs = codec.decode(counted)
    times, given = codec.decode(values)
    return ScalarRows(json.loads(bytes(text)), series.astype(np.uint32), steps, times, given, seqs)


def joined_user(parts: Sequence[ScalarRows]) -> ScalarRows:
    """Values of several parts by series and step, of one given twice that of the highest seq."""
    if not parts:
        none = np.zeros(0)
        steps = none.astype(np.int64)
        return ScalarRows([], none.astype(np.uint32), steps, none, none, steps)
    names = sorted({name for part in parts for name in part.names})
    index = {name: at for at, name in enumerate(names)}
    places = [np.array([index[name] for name in part.names], np.uint32) for part in parts]
    series = np.concatenate([place[part.series] for place, part in zip(places, parts, strict=True)])
    steps, times, values, seqs = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("steps", "times", "values", "seqs")
    )
    order = np.lexsort((np.arange(len(steps)), seqs, steps, series))
    same = (np.diff(series[order].astype(np.int64)) == 0) & (np.diff(steps[order]) == 0)
    order = order[np.append(~same, True)] if len(order) else order
    used = np.unique(series[order])
    renamed = np.searchsorted(used, series[order]).astype(np.uint32)
    kept = [names[at] for at in used.tolist()]
    return ScalarRows(kept, renamed, steps[order], times[order], values[order], seqs[order])


def joined_rows(parts: Sequence[SealedRows], width: int) -> SealedRows:
    """Rows of several parts in step order over ``width`` layers; of a step given twice that of the highest seq stays.

    Of two rows with one seq, too, the later part's: a step twice in one frame cannot be.
    """
    if not parts:
        none = np.zeros(0)
        steps = none.astype(np.int64)
        return SealedRows(StepRows(steps, none, {}, np.zeros((0, width), np.float32), None), steps)
    if len(parts) == 1:
        whole = parts[0]
    else:
        whole = SealedRows(_concatenated([part.rows for part in parts]), np.concatenate([part.seqs for part in parts]))
    steps = whole.rows.steps
    if len(steps) > 1 and not (np.diff(steps) > 0).all():
        order = np.lexsort((whole.seqs, steps))
        ordered = steps[order]
        whole = whole.take(order[np.append(ordered[1:] != ordered[:-1], True)])
    return whole


def _concatenated(parts: Sequence[StepRows]) -> StepRows:
    names = list(dict.fromkeys(name for part in parts for name in part.scalars))
    present = None
    if any(part.present is not None for part in parts):
        present = np.concatenate([np.ones(p.layers.shape, np.bool_) if p.present is None else p.present for p in parts])
    return StepRows(
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.times for part in parts]),
        {name: _scalar(parts, name) for name in names},
        np.concatenate([part.layers for part in parts]),
        present,
    )


def _scalar(parts: Sequence[StepRows], name: str) -> Floats:
    return np.concatenate([p.scalars[name] if name in p.scalars else np.full(len(p.steps), MISSING) for p in parts])


def _text(names: Sequence[str] | Mapping[str, Any]) -> bytes:
    return json.dumps(names, separators=(",", ":")).encode()


def _joined(parts: Sequence[bytes]) -> bytes:
    sizes = struct.pack(f"<{len(parts) + 1}I", len(parts), *map(len, parts))
    return sizes + b"".join(parts)


def _parts(data: bytes) -> list[memoryview]:
    (count,) = struct.unpack_from("<I", data)
    ends = np.cumsum([4 + 4 * count, *struct.unpack_from(f"<{count}I", data, 4)]).tolist()
    return [memoryview(data)[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]
