"""A run's recording: what turns rows, values and events into frames, and keeps spool and sender going.

``Recording`` holds no reference to the monitor or the model, so that both can be collected while it lives.
"""

from __future__ import annotations

import atexit
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor

from gradwatch import frames
from gradwatch.console import say
from gradwatch.discovery import find_server
from gradwatch.frames import Column, FrameError, Kind
from gradwatch.recorder import SCALARS, Recorder, Rows
from gradwatch.sender import Sender
from gradwatch.settings import SPOOL_CAP, Settings
from gradwatch.spool import Spool

EXIT_SECONDS: Final = 2.0  # what ending a run may cost at most
_TICK: Final = 0.025  # seconds between two looks at the rows; half of the 50 ms in which a step shall reach the spool
_FRAME_BYTES: Final = 128 << 10  # body of one steps frame: joining it holds the interpreter for well under 200 us
_ROWS: Final = 64  # rows of one steps frame at most
_TABLE_PART: Final = 512 << 10  # bytes of names in one part of a layer table


class Sink(Protocol):
    """What a monitor records to."""

    def begin(self, table: list[list[Any]], recorder: Recorder) -> None: ...
    def urgent(self) -> None: ...
    def log(self, step: int, values: Mapping[str, float | Tensor]) -> None: ...
    def event(self, step: int, name: str, text: str) -> None: ...
    def finish(self, state: str, reason: str) -> None: ...


class NullSink:
    """Records nothing: mode ``disabled``, ranks that do not stream, copies, forked children."""

    def begin(self, table: list[list[Any]], recorder: Recorder) -> None:
        return

    def urgent(self) -> None:
        return

    def log(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        return

    def event(self, step: int, name: str, text: str) -> None:
        return

    def finish(self, state: str, reason: str) -> None:
        return


@dataclass(frozen=True, slots=True)
class _Value:
    step: int
    time: float
    series: str
    value: float | Tensor


@dataclass(frozen=True, slots=True)
class _Event:
    step: int
    time: float
    name: str
    text: str


class Recording:
    """Starts at the first clip (or logged value): only then start step and execution order are known.

    ``hello``: header of the hello frame without ``writer`` and ``seq``. The recording thread wakes every 25 ms, or at
    once when something non-finite or exploding came.
    """

    def __init__(self, settings: Settings, writer: str, hello: dict[str, Any], address_of: str) -> None:
        self.writer = writer
        self._settings = settings
        self._address_of = address_of
        self._recorder: Recorder | None = None
        self._begun: deque[tuple[list[list[Any]], Recorder]] = deque()
        self._table: str | None = None
        self._columns: list[Column] = []
        self._last_step: int | None = None
        self._seq = 0
        self._lost_rows = 0
        self._waiting: deque[_Value | _Event] = deque()
        self._told: str | None = None
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._finish_once = threading.Lock()
        self._spool = Spool(settings.spool, writer, SPOOL_CAP)
        self._sender = Sender(
            self._spool,
            find=self._find_server,
            token=settings.token,
            on_server=self._tell_address,
            last_step=lambda: self._last_step,
        )
        self._append(Kind.HELLO, hello, preamble=True)
        self._thread = threading.Thread(target=self._run, name="gradwatch-record", daemon=True)
        self._thread.start()
        if settings.mode == "online":
            self._sender.start()
        if self._spool.disk_error:
            say(f"the spool cannot be written ({self._spool.disk_error}); frames wait in memory")
        atexit.register(self._at_exit)

    # The training thread's side: only queues.

    def begin(self, table: list[list[Any]], recorder: Recorder) -> None:
        """From now on steps come by ``recorder``; ``table``: rows [name, shape, numel, order] of its layers."""
        self._begun.append((table, recorder))

    def urgent(self) -> None:
        """The step just written must not wait."""
        self._wake.set()

    def log(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        now = time.time()
        for series, value in values.items():
            # A clone, because the caller may go on adding to the tensor; it becomes a number in the other thread.
            kept = value.detach().clone() if isinstance(value, Tensor) else float(value)
            self._waiting.append(_Value(step, now, frames.check_text("a series' name", series), kept))

    def event(self, step: int, name: str, text: str) -> None:
        frames.check_text("an event's name", name)
        self._waiting.append(_Event(step, time.time(), name, text[: frames.MAX_NAME]))

    def finish(self, state: str, reason: str) -> None:
        """Write the rest, say how the run ended, deliver what can be delivered in two seconds. Safe to call again."""
        if not self._finish_once.acquire(blocking=False):
            return
        atexit.unregister(self._at_exit)
        deadline = time.monotonic() + EXIT_SECONDS
        self._ended.set()
        self._wake.set()
        self._thread.join(EXIT_SECONDS / 2)
        last = {"state": state, "reason": reason, "last_step": self._last_step, "time": time.time()}
        self._append(Kind.FINISH, last)
        delivered = self._sender.close(self._seq - 1, deadline) if self._settings.mode == "online" else False
        self._spool.close(delivered=delivered or self._sender.delivery.deleted)
        if not delivered and self._settings.mode == "online" and not self._sender.delivery.deleted:
            say(f"not all is delivered yet; it waits in {self._spool.folder}: `gradwatch serve` will show it")

    def _at_exit(self) -> None:
        self.finish("finished", "")

    # The recording thread's side.

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(_TICK)
            urgent = self._wake.is_set()
            self._wake.clear()
            self._write_all(urgent)
        self._write_all(urgent=True)

    def _write_all(self, urgent: bool) -> None:
        before = self._seq
        try:
            self._write_rows()
            self._write_waiting()
        except Exception as error:  # the thread must outlive whatever one odd value does
            if self._told is None:
                self._told = repr(error)
                say(f"a frame could not be written: {error!r}")
        if self._seq > before:
            self._sender.notify(urgent=urgent)

    def _write_rows(self) -> None:
        if self._recorder is not None:
            self._drain(self._recorder)
        # A new table only after the last row of the old one, which may still be on its way from the device.
        while self._begun and (self._recorder is None or self._recorder.empty):
            table, self._recorder = self._begun.popleft()
            self._define_table(table, self._recorder)
            self._drain(self._recorder)

    def _drain(self, recorder: Recorder) -> None:
        most = max(1, min(_ROWS, _FRAME_BYTES // max(1, recorder.layers * 4)))
        for rows in recorder.take(most):
            self._last_step = int(rows.step[-1])
            self._append_steps(rows)
        dropped = recorder.take_dropped()
        if dropped:
            self._append_dropped(dropped[0], dropped[-1], len(dropped), "the rows' memory was full")

    def _append_steps(self, rows: Rows) -> None:
        absent = bool(rows.absent.any())
        columns = {
            "step": rows.step,
            "time": rows.time,
            **{name: rows.scalars[:, place] for place, name in enumerate(SCALARS)},
            "nonfinite": np.count_nonzero(~np.isfinite(rows.norms), axis=1),
            "grad_norm": rows.norms,
            "absent": rows.absent,
        }
        wanted = [column for column in self._columns if absent or column.name != "absent"]
        body = [_as_bytes(columns[column.name], column.dtype) for column in wanted]
        header: dict[str, Any] = {"table": self._table, "rows": len(rows.step)}
        if not absent:
            header["without"] = ["absent"]
        if not self._append(Kind.STEPS, header, body):
            self._lost_rows += len(rows.step)
            if self._lost_rows == len(rows.step):
                say(f"the spool {self._spool.folder} is full; further steps are dropped and counted")
        elif self._lost_rows:
            lost, self._lost_rows = self._lost_rows, 0
            self._append_dropped(int(rows.step[0]) - lost, int(rows.step[0]) - 1, lost, "the spool was full")

    def _append_dropped(self, first: int, last: int, count: int, reason: str) -> None:
        lost = {"first_step": max(0, first), "last_step": last, "rows": count, "reason": reason}
        self._append(Kind.DROPPED, lost)

    def _write_waiting(self) -> None:
        values: list[_Value] = []
        while self._waiting:
            item = self._waiting.popleft()
            if isinstance(item, _Value):
                values.append(item)
            else:
                header = {"step": item.step, "time": item.time, "name": item.name, "text": item.text}
                self._append(Kind.EVENT, header)
        for start in range(0, len(values), 1024):
            self._append_scalars(values[start : start + 1024])

    def _append_scalars(self, values: list[_Value]) -> None:
        series = sorted({value.series for value in values})
        columns = [Column("series", "u4"), Column("step", "i8"), Column("time", "f8"), Column("value", "f8")]
        body = [
            np.array([series.index(value.series) for value in values], np.uint32).tobytes(),
            np.array([value.step for value in values], np.int64).tobytes(),
            np.array([value.time for value in values], np.float64).tobytes(),
            np.array([float(value.value) for value in values], np.float64).tobytes(),
        ]
        header = {"series": series, "rows": len(values), "columns": [column.as_json() for column in columns]}
        self._append(Kind.SCALARS, header, body)

    def _define_table(self, table: list[list[Any]], recorder: Recorder) -> None:
        float_type = "f8" if recorder.dtype is torch.float64 else "f4"
        self._columns = step_columns(len(table), float_type)
        columns = [column.as_json() for column in self._columns]
        base: str | None = None
        parts = _parts(table)
        for number, part in enumerate(parts, 1):
            said = columns if number == len(parts) else []
            name = frames.table_hash(base, part, said)
            self._append(Kind.LAYERS, {"table": name, "base": base, "layers": part, "columns": said}, preamble=True)
            base = name
        self._table = base

    def _append(
        self,
        kind: Kind,
        header: dict[str, Any],
        body: Sequence[frames.Buffer] = (),
        *,
        preamble: bool = False,
    ) -> bool:
        try:
            data = frames.encode(kind, {"writer": self.writer, "seq": self._seq, **header}, body)
        except FrameError as error:
            say(f"a {kind.name.lower()} frame could not be written: {error}")
            return False
        if not self._spool.append(data, self._seq, preamble=preamble):
            return False
        self._seq += 1
        return True

    # The sender's questions.

    def _find_server(self) -> str | None:
        server = self._settings.server or find_server(self._settings.directory)
        if server is None and self._told is None:
            self._told = "no server"
            say(f"no server found; frames wait in {self._spool.folder} and `gradwatch serve` will show them")
        return server

    def _tell_address(self, server: str) -> None:
        if self._told != server:
            self._told = server
            say(f"watch it at {server}/#/run/{self._address_of}")


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
        Column("grad_norm", float_type, layers),
        Column("absent", "u1", math.ceil(layers / 8)),
    ]


_NUMPY_TYPES: Final = {"u1": np.uint8, "u4": np.uint32, "i8": np.int64, "f4": np.float32, "f8": np.float64}


def _as_bytes(column: np.ndarray[Any, Any], dtype: str) -> memoryview:
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
