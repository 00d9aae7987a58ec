"""Runs the rules over every writer's steps from a durable cursor, and groups what they find into alerts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gradwatch import frames
from gradwatch.frames import Kind
from sqlalchemy import case, func, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .changes import RunChange
from .rules import explosion, nonfinite, tripwire
from .rules.findings import Finding, Moment, Rows, State
from .rules.tripwire import HookEvent
from .store import runs, tables, upsert
from .store.decode import decode_steps
from .store.engine import tell
from .store.registry import LayerBook
from .store.store import Store

log = logging.getLogger("gradwatch.alerts")

_FRAMES_AT_ONCE: Final = 64  # of one writer in one transaction
_WRITERS_AT_ONCE: Final = 32
_PAUSE: Final = 0.05  # seconds between two looks, so that many writers share a transaction
_LONGEST_PAUSE: Final = 1.0
# For which a frame that is missing is waited for: while a spool catches up it is another one every few moments. What
# another database was given, or what was lost with a process, never comes.
_HOLE_SECONDS: Final = 600.0


@dataclass(slots=True)
class _Judged:
    """One writer's steps up to ``seq``, judged."""

    writer: int
    run: str
    attempt: int
    since: int
    seq: int
    state: State
    findings: list[Finding] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)


class Judge:
    """One task. Cursor, state, alerts and events move in one transaction: nothing is judged twice or left out."""

    def __init__(
        self, store: Store, reached: Callable[[str], None], wake_notifier: Callable[[], None], *, notify: bool
    ) -> None:
        self._store, self._reached, self._wake_notifier, self._notify = store, reached, wake_notifier, notify
        self._waiting: set[str] = set()
        self._holes: dict[str, tuple[int, float]] = {}  # by writer: the seq that is missing, and when that was seen
        self._wake = asyncio.Event()
        store.on_commit(self._committed)
        store.sealer.waits_for_rules = True

    def _committed(self, changes: dict[str, RunChange]) -> None:
        for change in changes.values():
            self._waiting |= change.writers
        if self._waiting:
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        self._waiting |= await self._left_over()
        self._wake.set()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _HOLE_SECONDS if self._holes else None)
            self._wake.clear()
            self._waiting |= {key for key, (_, seen) in self._holes.items() if _is_long_ago(seen)}
            began = time.monotonic()
            try:
                await self.drain()
            except Exception as error:
                tell(log, "the rules failed and will be tried again", error)
                await asyncio.sleep(1)
                self._waiting |= await self._left_over()
                self._wake.set()
            # Of many writers none waits long for the rules, and the rules leave the most of a core to others.
            await asyncio.sleep(min(_LONGEST_PAUSE, max(_PAUSE, 4 * (time.monotonic() - began))))

    async def drain(self) -> None:
        """Judge all that waits."""
        while self._waiting:
            some = [self._waiting.pop() for _ in range(min(_WRITERS_AT_ONCE, len(self._waiting)))]
            judged = [found for key in some if (found := await self._judge(key)) is not None]
            if judged:
                self._reached("before_rules")
                changes = await self._store.writer.run(lambda connection, all=judged: self._keep(connection, all))  # type: ignore[misc]
                self._store.sealer.wake()
                self._store.publish(changes)
                if any(change.alerts for change in changes.values()):
                    self._wake_notifier()

    async def _left_over(self) -> set[str]:
        w, r, f = tables.writers.c, tables.rule_states.c, tables.frames.c
        newest = select(func.max(f.seq)).where(f.writer == w.id).scalar_subquery()
        behind = (
            select(w.key)
            .join(tables.rule_states, r.writer == w.id, isouter=True)
            .where(w.state != "deleted", newest >= func.coalesce(r.seq, 0))
        )
        async with self._store.engines.read.connect() as connection:
            return set((await connection.scalars(behind)).all())

    async def _judge(self, key: str) -> _Judged | None:
        w, f, r = tables.writers.c, tables.frames.c, tables.rule_states.c
        async with self._store.engines.read.connect() as connection:
            writer = (await connection.execute(select(tables.writers).where(w.key == key))).first()
            if writer is None or writer.state == "deleted":
                self._holes.pop(key, None)
                return None
            known = (await connection.execute(select(r.seq, r.state).where(r.writer == writer.id))).first()
            since, state = (known.seq, json.loads(known.state)) if known else (0, {})
            data = case((f.kind.in_((int(Kind.STEPS), int(Kind.EVENT))), f.data), else_=null())
            chosen = select(f.seq, data).where(f.writer == writer.id, f.seq >= since)
            rows = (await connection.execute(chosen.order_by(f.seq).limit(_FRAMES_AT_ONCE))).all()
        # Only what follows without a gap: a frame that is late must be judged before its successors.
        missing, seen = self._holes.pop(key, (-1, 0.0))
        begin = rows[0].seq if rows and missing == since and _is_long_ago(seen) else since
        whole = [(seq, data) for at, (seq, data) in enumerate(rows) if seq == begin + at]
        if len(whole) < len(rows):
            hole = begin + len(whole)
            self._holes[key] = (hole, seen if hole == missing else time.monotonic())
        if not whole:
            return None
        if len(whole) == _FRAMES_AT_ONCE:
            self._waiting.add(key)
        found = [frames.decode(data) for _, data in whole if data is not None]
        judged = _Judged(writer.id, writer.run, writer.attempt, since, begin + len(whole), state)
        if found:
            steps = [frame for frame in found if frame.kind is Kind.STEPS]
            book = await self._store.books.for_frames(writer.id, steps)
            await asyncio.to_thread(_apply_rules, judged, found, book)
        return judged

    async def _keep(self, connection: AsyncConnection, all_judged: Sequence[_Judged]) -> dict[str, RunChange]:
        changes: dict[str, RunChange] = {}
        now, r, w = time.time(), tables.rule_states.c, tables.writers.c
        for judged in all_judged:
            since = await connection.scalar(select(r.seq).where(r.writer == judged.writer))
            state = await connection.scalar(select(w.state).where(w.id == judged.writer))
            if (since or 0) != judged.since or state == "deleted":
                continue
            change = changes.setdefault(judged.run, RunChange(judged.run))
            for finding in judged.findings:
                change.alerts.append(await self._raise(connection, judged, finding, now))
            change.state |= bool(judged.findings)
            events = [_event(judged, moment) for moment in judged.moments]
            await upsert.insert_new(connection, tables.events, events)
            change.events += events
            row = {"writer": judged.writer, "seq": judged.seq, "state": json.dumps(judged.state)}
            await upsert.replace(connection, tables.rule_states, [row])
        return changes

    async def _raise(
        self, connection: AsyncConnection, judged: _Judged, finding: Finding, now: float
    ) -> dict[str, Any]:
        """Write the alert of an episode, or bring it up to date. Ranks of one attempt share it."""
        a = tables.alerts.c
        fingerprint = f"{judged.run}:{judged.attempt}:{finding.rule}:{finding.first_step}"
        known = (await connection.execute(select(tables.alerts).where(a.fingerprint == fingerprint))).first()
        if known is None:
            values: dict[str, Any] = {
                "fingerprint": fingerprint,
                "run": judged.run,
                "attempt": judged.attempt,
                "rule": finding.rule,
                "severity": finding.severity,
                "title": finding.title,
                "text": finding.text,
                "count": finding.count,
                "first_step": finding.first_step,
                "last_step": finding.last_step,
                "layers": json.dumps(finding.layers),
                "state": "open",
                "created_at": now,
                "updated_at": now,
                "notified": "pending" if self._notify else "none",
                "notify_tries": 0,
                "notify_after": now,
            }
            await connection.execute(insert(tables.alerts).values(values))
        elif finding.count >= known._mapping["count"]:
            last = max(finding.last_step, known.last_step)
            changed = {"text": finding.text, "count": finding.count, "last_step": last, "updated_at": now}
            await connection.execute(update(tables.alerts).where(a.id == known.id).values(changed))
        row = (await connection.execute(select(tables.alerts).where(a.fingerprint == fingerprint))).one()
        return runs.alert_json(row)


def _is_long_ago(seen: float) -> bool:
    return time.monotonic() >= seen + _HOLE_SECONDS


def _apply_rules(judged: _Judged, found: Sequence[frames.Frame], book: LayerBook) -> None:
    for frame in found:
        if frame.kind is Kind.EVENT:
            said = frame.header
            judged.findings += tripwire.judge([HookEvent(said["name"], said["step"], said.get("text") or "")])
            continue
        rows = Rows.of(decode_steps(frame, book.tables[frame.header["table"]], len(book.layers)), book.layers)
        for rule in (nonfinite, explosion):
            state, findings, moments = rule.judge(judged.state.get(rule.NAME, {}), rows)
            judged.state[rule.NAME] = state
            judged.findings += findings
            judged.moments += moments


def _event(judged: _Judged, moment: Moment) -> dict[str, Any]:
    return {
        "key": f"{judged.run}:{judged.attempt}:{moment.kind}:{moment.step}",
        "run": judged.run,
        "attempt": judged.attempt,
        "step": moment.step,
        "time": moment.time,
        "kind": moment.kind,
        "name": moment.kind,
        "text": moment.text,
    }
