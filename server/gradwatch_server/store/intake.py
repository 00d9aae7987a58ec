"""Frames into rows: one batch, one transaction. A frame is taken whole or refused whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from gradwatch import frames
from gradwatch.frames import Frame, FrameError, Kind
from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..changes import RunChange
from . import checks, hello, landscape_frames, sealed, tables, upsert
from .decode import DTYPES, LayerTable, check_steps, decode_scalars, step_columns
from .marks import grown
from .registry import Registry, RunState, WriterState
from .sample_frames import check_samples, metric_of, stored_kind
from .states import refresh_run
from .tiles import BLOCK

MOST_USER_SERIES: Final = 1_000
# Event names of the hook itself; everything else that comes as an event was the user's.
HOOK_EVENTS: Final = frozenset(
    {"fallback", "degraded", "overflow", "dropped", "wiring", "fold", "detached", "probe", "probe_tripwire"}
)
CONTROL_EVENT: Final = "control"  # by which a hook says what became of a command


@dataclass(frozen=True, slots=True)
class Stored:
    """The columns of a frame's row that depend on its kind."""

    rows: int = 0
    first_step: int | None = None
    last_step: int | None = None
    kind: int | None = None  # None: the frame's own


@dataclass(slots=True)
class _Drop:
    """Tombstones of one writer with one reason."""

    writer: WriterState
    frame: Frame
    rows: int = 0
    first: int | None = None
    last: int | None = None

    def add(self, rows: int, first: int | None, last: int | None) -> None:
        self.rows += rows
        if first is not None:
            self.first = first if self.first is None else min(self.first, first)
        if last is not None:
            self.last = last if self.last is None else max(self.last, last)


class Batch:
    """Frames on their way into one transaction; flush() writes them. If it fails, forget() what was touched."""

    def __init__(self, connection: AsyncConnection, registry: Registry, now: float) -> None:
        self.connection, self.registry, self.now = connection, registry, now
        self.changes: dict[str, RunChange] = {}
        self.writers: dict[str, WriterState] = {}
        self._runs: dict[str, RunState] = {}
        self._frames: dict[tuple[str, int], dict[str, Any]] = {}
        self._dirty: list[tuple[int, int, int]] = []
        self._events: list[dict[str, Any]] = []
        self._new_series: set[tuple[str, str]] = set()
        self._restated: set[str] = set()  # runs whose state must be worked out again
        self._drops: dict[tuple[str, str], _Drop] = {}  # by writer and reason

    async def add(self, frame: Frame, data: bytes | memoryview) -> WriterState:
        """Take in one frame. Raises FrameError; then nothing of the frame has been kept."""
        key, seq = checks.writer_of(frame.header), checks.seq_of(frame.header)
        if frame.kind is Kind.HELLO:
            writer = await self._hello(frame)
        else:
            found = await self.registry.writer(self.connection, key)
            if found is None:
                raise FrameError("hello", "this server does not know the writer: send its hello first")
            writer = found
        run = await self.registry.run(self.connection, writer.run)
        if run is None or run.deleted_at is not None or writer.state == "deleted":
            raise FrameError("deleted", "the run was deleted on the server")
        self.writers[key], self._runs[run.id] = writer, run
        if not await self._is_known(writer, seq, frame.checksum):
            stored = await self._keep(writer, run, frame)
            self._frames[key, seq] = {
                "writer": writer.id,
                "seq": seq,
                "kind": int(frame.kind) if stored.kind is None else stored.kind,
                "crc": frame.checksum,
                "rows": stored.rows,
                "first_step": stored.first_step,
                "last_step": stored.last_step,
                "data": bytes(data),
            }
            writer.seqs.add(seq)
            self.change(run.id).writers.add(key)
        self._alive(writer, frame.kind)
        return writer

    async def flush(self) -> None:
        """Write what add() gathered."""
        self._say_drops()
        series = [{"run": run, "name": name} for run, name in sorted(self._new_series)]
        await upsert.insert_new(self.connection, tables.user_series, series)
        if self._frames:
            await self.connection.execute(tables.frames.insert(), list(self._frames.values()))
        await upsert.mark_dirty(self.connection, tables.dirty, self._dirty)
        await upsert.insert_new(self.connection, tables.events, self._events)
        await self._write_states()
        for run in self._runs:
            self.change(run)
        for run in self._restated & self._runs.keys():
            self.change(run).state |= await refresh_run(self.connection, run, self.now)

    def committed(self) -> None:
        """After the commit: acks may speak of it from now on."""
        for writer in self.writers.values():
            writer.acked = (writer.seqs.through, writer.seqs.beyond())

    def forget(self) -> None:
        """After a failure: what memory holds may be ahead of the database."""
        self.registry.forget(set(self.writers), set(self._runs))

    def change(self, run: str) -> RunChange:
        """What this batch does to a run."""
        return self.changes.setdefault(run, RunChange(run, state=True))

    async def _hello(self, frame: Frame) -> WriterState:
        said = checks.hello(frame.header)
        known = await self.registry.writer(self.connection, said.writer)
        if known is not None:
            return known
        writer, run, event = await hello.introduce(self.connection, self.registry, said, self.now)
        self.writers[writer.key], self._runs[run.id] = writer, run
        self._restated.add(run.id)
        self.change(run.id).structure = True
        if event:
            self._say(run.id, event)
        return writer

    async def _is_known(self, writer: WriterState, seq: int, checksum: int) -> bool:
        if seq not in writer.seqs:
            return False
        pending = self._frames.get((writer.key, seq))
        columns = tables.frames.c
        known = pending["crc"] if pending else None
        if known is None:
            hot = select(columns.crc).where(columns.writer == writer.id, columns.seq == seq)
            known = await self.connection.scalar(hot)
        if known is None:
            known = await sealed.checksum_of(self.connection, writer.id, seq)
        if known != checksum:
            raise FrameError("conflict", f"frame {seq} of this writer is already stored with other bytes")
        return True

    async def _keep(self, writer: WriterState, run: RunState, frame: Frame) -> Stored:
        match frame.kind:
            case Kind.LAYERS:
                await hello.learn_layers(self.connection, writer, run, checks.layers(frame.header))
                self.change(run.id).structure = True
            case Kind.STEPS:
                return self._steps(writer, run, frame)
            case Kind.SCALARS:
                return self._scalars(writer, run, frame)
            case Kind.SAMPLES | Kind.HISTOGRAM:
                return self._samples(writer, frame)
            case Kind.LANDSCAPE:
                return self._landscape(run, frame)
            case Kind.EVENT:
                self._event(writer, frame)
            case Kind.DROPPED:
                return self._dropped(writer, frame)
            case Kind.FINISH:
                self._finish(writer, frame)
        return Stored()

    def _steps(self, writer: WriterState, run: RunState, frame: Frame) -> Stored:
        table = _cited_table(writer, frame)
        checks.check_widths(table.columns, len(table.layers))
        if not table.columns:
            raise FrameError("field", "this steps frame cites a part of a layer table that names no columns")
        steps = np.frombuffer(step_columns(frame, table)["step"], DTYPES["i8"])
        check_steps(steps, increasing=True)
        first, last = int(steps[0]), int(steps[-1])
        if first < writer.thinned_to:
            self._say_late(writer, frame, steps[steps < writer.thinned_to])
            steps = steps[steps >= writer.thinned_to]
            if not len(steps):
                return Stored(frame.header["rows"], first, last, int(Kind.DROPPED))
        self._cover(writer, run, first, last, dense=True)
        writer.steps_span = max(writer.steps_span, last - first)
        self._touch(writer, steps)
        return Stored(frame.header["rows"], first, last)

    def _say_late(self, writer: WriterState, frame: Frame, steps: np.ndarray[Any, Any]) -> None:
        first, last = int(steps[0]), int(steps[-1])
        text = f"{len(steps)} rows (steps {first} to {last}) came after their steps were thinned, and were dropped"
        self._say_event(writer, frame, kind="hook", step=first, time=self.now, name="dropped", text=text)

    def _scalars(self, writer: WriterState, run: RunState, frame: Frame) -> Stored:
        rows = decode_scalars(frame)
        new = set(rows.names) - run.user_series
        if len(run.user_series) + len(new) > MOST_USER_SERIES:
            raise FrameError("field", f"a run holds at most {MOST_USER_SERIES} series of its own")
        if new:
            self._new_series.update((run.id, name) for name in new)
            run.user_series |= new
            self.change(run.id).structure = True
        first, last = int(rows.steps.min()), int(rows.steps.max())
        self._cover(writer, run, first, last, dense=False)
        writer.scalars_span = max(writer.scalars_span, last - first)
        self._touch(writer, rows.steps)
        return Stored(len(rows.steps), first, last)

    def _samples(self, writer: WriterState, frame: Frame) -> Stored:
        # Neither the run's end nor its columns move with samples: whoever shows them asks for them over HTTP.
        metric = metric_of(frame)
        rows = check_samples(frame, _cited_table(writer, frame))
        first, last = int(rows.steps.min()), int(rows.steps.max())
        writer.scalars_span = max(writer.scalars_span, last - first)
        return Stored(len(rows.steps), first, last, stored_kind(metric))

    def _landscape(self, run: RunState, frame: Frame) -> Stored:
        # Of probes nothing is in the columns either: viewers are told, and ask for them over HTTP.
        rows, first, last = landscape_frames.check_landscape(frame)
        self.change(run.id).landscape = True
        return Stored(frame.header["rows"], first, last, landscape_frames.stored_kind(rows.name))

    def _event(self, writer: WriterState, frame: Frame) -> None:
        header = frame.header
        name = frames.check_text("'name'", header.get("name"))
        self._say_event(
            writer,
            frame,
            kind="hook" if name in HOOK_EVENTS else "control" if name == CONTROL_EVENT else "user",
            step=frames.check_count("'step'", header.get("step")),
            time=checks.moment(header, "time"),
            name=name,
            text=checks.text(header, "text"),
        )

    def _dropped(self, writer: WriterState, frame: Frame) -> Stored:
        header = frame.header
        first, last = checks.count_or_none(header, "first_step"), checks.count_or_none(header, "last_step")
        rows = frames.check_count("'rows'", header.get("rows"))
        reason = checks.text(header, "reason")
        self._drops.setdefault((writer.key, reason), _Drop(writer, frame)).add(rows, first, last)
        return Stored(0, first, last)

    def _say_drops(self) -> None:
        # A spool that reached its cap leaves tombstones by the thousand: those of one commit become one event.
        for (_, reason), drop in self._drops.items():
            where = "" if drop.first is None else f" (steps {drop.first} to {drop.last})"
            text = f"{drop.rows} rows were dropped before they were sent{where}: {reason}"
            about = {"kind": "hook", "step": drop.first or 0, "time": self.now, "name": "dropped", "text": text}
            self._say_event(drop.writer, drop.frame, **about)

    def _finish(self, writer: WriterState, frame: Frame) -> None:
        header = frame.header
        state = header.get("state")
        if state not in ("finished", "failed"):
            raise FrameError("field", '\'state\' must be "finished" or "failed"')
        checks.count_or_none(header, "last_step")
        ended_at = checks.moment(header, "time")
        reason = checks.text(header, "reason") or None
        writer.state, writer.reason, writer.ended_at = state, reason, ended_at
        self._restated.add(writer.run)

    def _say_event(self, writer: WriterState, frame: Frame, **event: Any) -> None:
        key = f"{writer.key}:{frame.header['seq']}"
        self._say(writer.run, {"key": key, "run": writer.run, "attempt": writer.attempt, **event})

    def _say(self, run: str, event: dict[str, Any]) -> None:
        self._events.append(event)
        self.change(run).events.append(event)

    def _cover(self, writer: WriterState, run: RunState, first: int, last: int, *, dense: bool) -> None:
        self._dirty += grown(writer.id, writer.last_step, last)
        writer.first_step = first if writer.first_step is None else min(writer.first_step, first)
        writer.last_step = last if writer.last_step is None else max(writer.last_step, last)
        if writer.attempt == run.attempt and dense:
            run.last_step = last if run.last_step is None else max(run.last_step, last)
        self.change(run.id).steps(first, last)

    def _touch(self, writer: WriterState, steps: np.ndarray[Any, Any]) -> None:
        blocks = np.unique(steps // BLOCK) if len(steps) > 1 else steps // BLOCK
        self._dirty += [(writer.id, BLOCK, block) for block in blocks.tolist()]

    def _alive(self, writer: WriterState, kind: Kind) -> None:
        writer.seen_at = self.now
        if writer.state == "lost" and kind not in (Kind.HELLO, Kind.LAYERS):
            writer.state, writer.reason, writer.ended_at = "running", None, None
            self._restated.add(writer.run)

    async def _write_states(self) -> None:
        """Writers and runs as they now are; each kind by one statement, because hundreds may be in a batch."""
        names = ("state", "reason", "first_step", "last_step", "steps_span", "scalars_span", "seen_at", "ended_at")
        writers = [{"its_id": w.id, **{name: getattr(w, name) for name in names}} for w in self.writers.values()]
        runs = [{"its_id": r.id, "updated_at": self.now, "last_step": r.last_step} for r in self._runs.values()]
        for table, rows in ((tables.writers, writers), (tables.runs, runs)):
            if rows:
                await self.connection.execute(update(table).where(table.c.id == bindparam("its_id")), rows)


def _cited_table(writer: WriterState, frame: Frame) -> LayerTable:
    """The layer table that a frame names. Raises FrameError where it has not arrived."""
    name = frame.header.get("table")
    table = writer.book.tables.get(name) if isinstance(name, str) else None
    if table is None:
        what = frame.kind.name.lower()
        raise FrameError(
            "table", f"this {what} frame cites a layer table that has not arrived: send it, then the frame"
        )
    return table
