"""What one writer has to say, as numbered frames in its spool. For the recording thread alone: seq has no lock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from gradwatch import frames
from gradwatch.console import say
from gradwatch.device_recorder import DeviceRecorder
from gradwatch.frames import Column, FrameError, Kind
from gradwatch.measure.sample import Sample
from gradwatch.probe.landscape_rows import LandscapeRows
from gradwatch.recorder import SCALARS, Recorder, Rows
from gradwatch.sample_frames import sample_frames
from gradwatch.spool import Spool

# Names of step columns, which logged series cannot have.
OWN_SERIES: Final = frozenset({*SCALARS, "step", "time", "nonfinite", "overflowed", "grad_norm", "absent"})
_FRAME_BYTES: Final = 128 << 10  # norms in one steps frame: joining it holds the interpreter for well under 200 us
_ROWS: Final = 64  # rows of one steps frame at most
_VALUES: Final = 1024  # values of one scalars frame at most
_TABLE_PART: Final = 512 << 10  # bytes of names in one part of a layer table
_NUMPY_TYPES: Final = {"u1": np.uint8, "u4": np.uint32, "i8": np.int64, "f4": np.float32, "f8": np.float64}


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a logged series; a tensor becomes a number when its frame is written."""

    step: int
    time: float
    series: str
    value: float | Tensor


@dataclass(frozen=True, slots=True)
class Event:
    """A mark on the time axis."""

    step: int
    time: float
    name: str
    text: str


class Journal:
    """Writes the frames of ``writer`` to ``spool``; frames that find no room are counted and told by a tombstone."""

    def __init__(self, spool: Spool, writer: str) -> None:
        self.seq = 0
        self.last_step: int | None = None
        self._spool = spool
        self._writer = writer
        self._table: str | None = None
        self._columns: list[Column] = []
        self._lost_rows = 0
        self._overflow_told = False

    def hello(self, header: Mapping[str, Any]) -> None:
        if not self._append(Kind.HELLO, header, preamble=True):
            # Without a hello no server takes anything of the run: better one without its configuration.
            self._append(Kind.HELLO, {**header, "config": {"gradwatch": "too large to be sent"}}, preamble=True)

    def table(self, layers: list[list[Any]], dtype: torch.dtype) -> None:
        """The layer table that following steps cite; ``layers``: rows [name, shape, numel, order]."""
        self._columns = step_columns(len(layers), "f8" if dtype is torch.float64 else "f4")
        columns = [column.as_json() for column in self._columns]
        base: str | None = None
        parts = _parts(layers)
        for number, part in enumerate(parts, 1):
            said = columns if number == len(parts) else []
            name = frames.table_hash(base, part, said)
            self._append(Kind.LAYERS, {"table": name, "base": base, "layers": part, "columns": said}, preamble=True)
            base = name
        self._table = base

    def steps_of(self, recorder: Recorder | DeviceRecorder) -> None:
        """All steps that ``recorder`` holds by now, and a tombstone for those it had no room for."""
        most = max(1, min(_ROWS, _FRAME_BYTES // max(1, recorder.layers * 4)))
        for rows in recorder.take(most):
            self.last_step = int(rows.step[-1])
            self._steps(rows)
            self._tell_overflow(rows)
        dropped = recorder.take_dropped()
        if dropped:
            self.dropped(dropped[0], dropped[-1], len(dropped), "the rows' memory was full")

    def _tell_overflow(self, rows: Rows) -> None:
        """An event where the total norm overflowed while every layer's norm is finite; at the first such step."""
        total = rows.scalars[:, SCALARS.index("total_norm")]
        for row in np.flatnonzero(np.isinf(total))[:1] if not self._overflow_told else ():
            if np.isfinite(rows.norms[row]).all():
                self._overflow_told = True
                text = "the total norm overflowed while every layer's norm is finite: clipping zeroes the gradients"
                self.event(Event(int(rows.step[row]), float(rows.time[row]), "overflow", text))

    def _steps(self, rows: Rows) -> None:
        columns = {
            "step": rows.step,
            "time": rows.time,
            **{name: rows.scalars[:, place] for place, name in enumerate(SCALARS)},
            "nonfinite": np.count_nonzero(~np.isfinite(rows.norms), axis=1),
            "grad_norm": rows.norms,
            "absent": rows.absent,
        }
        some_absent = bool(rows.absent.any())
        wanted = [column for column in self._columns if some_absent or column.name != "absent"]
        body = [_as_bytes(columns[column.name], column.dtype) for column in wanted]
        without = {} if some_absent else {"without": ["absent"]}
        first, count = int(rows.step[0]), len(rows.step)
        if not self._append(Kind.STEPS, {"table": self._table, "rows": count, **without}, body):
            if not self._lost_rows:
                say(
                    f"the spool {self._spool.folder} is full of what must not go; further steps are dropped and counted"
                )
            self._lost_rows += count
        elif self._lost_rows:
            self._tell_lost_rows(first - 1)

    def _tell_lost_rows(self, last: int) -> None:
        if self._lost_rows and self.dropped(last + 1 - self._lost_rows, last, self._lost_rows, "the spool was full"):
            self._lost_rows = 0

    def dropped(self, first: int, last: int, count: int, reason: str) -> bool:
        """A counted tombstone; whether there was room for it."""
        lost = {"first_step": max(0, first), "last_step": max(0, last), "rows": count, "reason": reason}
        return self._append(Kind.DROPPED, lost, reserved=True)

    def values(self, values: Sequence[Value]) -> None:
        for start in range(0, len(values), _VALUES):
            self._values(values[start : start + _VALUES])

    def _values(self, values: Sequence[Value]) -> None:
        series = sorted({value.series for value in values})
        columns = [Column("series", "u4"), Column("step", "i8"), Column("time", "f8"), Column("value", "f8")]
        body = [
            _as_bytes(np.array([series.index(value.series) for value in values]), "u4"),
            _as_bytes(np.array([value.step for value in values]), "i8"),
            _as_bytes(np.array([value.time for value in values]), "f8"),
            _as_bytes(np.array([float(value.value) for value in values]), "f8"),
        ]
        header = {"series": series, "rows": len(values), "columns": [column.as_json() for column in columns]}
        self._append(Kind.SCALARS, header, body)

    def samples(self, samples: Sequence[Sample]) -> None:
        """What was measured beside the norms, of layers of the present table; lost where the spool is full."""
        for kind, header, columns in sample_frames(samples, self._table or ""):
            self._append(kind, header, columns)

    def landscape(self, rows: LandscapeRows) -> None:
        """What probes found; lost where the spool is full."""
        header, columns = rows.frame()
        self._append(Kind.LANDSCAPE, header, columns)

    def event(self, event: Event) -> None:
        header = {"step": event.step, "time": event.time, "name": event.name, "text": event.text}
        self._append(Kind.EVENT, header, reserved=True)

    def finish(self, state: str, reason: str, time: float) -> None:
        self._tell_lost_rows(self.last_step or 0)
        header = {"state": state, "reason": reason, "last_step": self.last_step, "time": time}
        self._append(Kind.FINISH, header, reserved=True)

    def _append(
        self,
        kind: Kind,
        header: Mapping[str, Any],
        body: Sequence[frames.Buffer] = (),
        *,
        preamble: bool = False,
        reserved: bool = False,
    ) -> bool:
        try:
            data = frames.encode(kind, {"writer": self._writer, "seq": self.seq, **header}, body)
        except FrameError as error:
            say(f"a {kind.name.lower()} frame could not be written: {error}")
            return False
        if not self._spool.append(data, self.seq, preamble=preamble, reserved=reserved):
            return False
        self.seq += 1
        return True


def step_columns(layers: int, float_type: str) -> list[Column]:
    """The schema of step frames with ``layers`` norms of ``float_type`` ("f4" or "f8")."""
    return [
        Column("step", "i8"),
        Column("time", "f8"),
        Column("loss", "f8"),
        Column("total_norm", float_type),
        Column("clip_coefficient", float_type),
        Column("threshold", float_type),
        Column("clipped", "u1"),
        Column("nonfinite", "u4"),
        Column("learning_rate", "f8"),
        Column("loss_scale", "f8"),
        Column("step_seconds", "f8"),
        Column("skipped", "u1"),
        Column("clip_cosine", "f4"),
        Column("sample_seconds", "f4"),
        Column("grad_norm", float_type, layers),
        Column("absent", "u1", math.ceil(layers / 8)),
    ]


def _as_bytes(column: np.ndarray[Any, Any], dtype: str) -> memoryview:
    with np.errstate(over="ignore", invalid="ignore"):  # what no float32 holds becomes infinity
        return np.ascontiguousarray(column, _NUMPY_TYPES[dtype]).reshape(-1).view(np.uint8).data


def _parts(table: list[list[Any]]) -> list[list[list[Any]]]:
    """``table`` cut into parts whose frames stay below the size limit; at least one part."""
    parts: list[list[list[Any]]] = [[]]
    size = 0
    for row in table:
        row_size = len(row[0]) * 6 + len(row[1]) * 12 + 40  # a character takes six bytes at most as JSON
        if size + row_size > _TABLE_PART:
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += row_size
    return parts
