"""A run's recording: the thread that brings rows, values and events into the spool, and the sender behind it."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol

from torch import Tensor

from gradwatch import frames
from gradwatch.console import say
from gradwatch.device_recorder import DeviceRecorder
from gradwatch.discovery import find_server
from gradwatch.frames import FrameError
from gradwatch.journal import OWN_SERIES, Event, Journal, Value
from gradwatch.measure.sample import Sample
from gradwatch.probe.landscape_rows import LandscapeRows
from gradwatch.recorder import Recorder
from gradwatch.sender import Sender
from gradwatch.settings import Settings
from gradwatch.spool import Spool

EXIT_SECONDS: Final = 2.0  # what ending a run, or all runs of a process, may cost at most
_TICK: Final = 0.025  # seconds between two looks at the rows; half of the 50 ms in which a step shall reach the spool


class Sink(Protocol):
    """What a monitor records to."""

    def begin(self, table: list[list[Any]], recorder: Recorder | DeviceRecorder) -> None: ...
    def urgent(self) -> None: ...
    def log(self, step: int, values: Mapping[str, float | Tensor]) -> None: ...
    def event(self, step: int, name: str, text: str) -> None: ...
    def sample(self, sample: Sample) -> None: ...
    def landscape(self, rows: LandscapeRows) -> None: ...
    def commands(self) -> list[Mapping[str, Any]]: ...
    def finish(self, state: str, reason: str) -> None: ...
    def abandon(self) -> None: ...


class NullSink:
    """Records nothing: mode ``disabled``, ranks that do not stream, copies, forked children."""

    def begin(self, table: list[list[Any]], recorder: Recorder | DeviceRecorder) -> None:
        return

    def urgent(self) -> None:
        return

    def log(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        return

    def event(self, step: int, name: str, text: str) -> None:
        return

    def sample(self, sample: Sample) -> None:
        return

    def landscape(self, rows: LandscapeRows) -> None:
        return

    def commands(self) -> list[Mapping[str, Any]]:
        return []

    def finish(self, state: str, reason: str) -> None:
        return

    def abandon(self) -> None:
        return


class Recording:
    """Starts at the first clip (or logged value): only then start step and execution order are known.

    It knows neither monitor nor model, so that both can be collected while it lives. ``hello``: header of the hello
    frame without ``writer`` and ``seq``; ``address_of``: the run's id in addresses.
    """

    def __init__(self, settings: Settings, writer: str, hello: Mapping[str, Any], address_of: str) -> None:
        self._settings = settings
        self._address_of = address_of
        self._process = os.getpid()
        self._takes_commands = bool(hello.get("control"))
        self._told: str | None = None
        self._failures: set[str] = set()
        self._recorder: Recorder | DeviceRecorder | None = None
        self._begun: deque[tuple[list[list[Any]], Recorder | DeviceRecorder]] = deque()
        self._waiting: deque[Value | Event] = deque()
        self._samples: deque[tuple[int, Sample]] = deque()
        self._landscape: deque[LandscapeRows] = deque()
        self._tables = 0
        self._tables_written = 0
        self._wake = threading.Event()
        self._end: tuple[str, str] | None = None
        self._finish_once = threading.Lock()
        self._finished = threading.Event()
        self._spool = Spool(settings.spool, writer, settings.spool_cap)
        self._journal = Journal(self._spool, writer)
        self._journal.hello(hello)
        self._sender = Sender(
            self._spool,
            find=self._find_server,
            token=settings.token,
            on_server=self._tell_address,
            last_step=lambda: self._journal.last_step,
        )
        self._thread = threading.Thread(target=self._run, name="gradwatch-record", daemon=True)
        self._thread.start()
        if settings.mode == "online":
            self._sender.start()
        atexit.register(self._at_exit)

    # The training thread's side: only queues.

    def begin(self, table: list[list[Any]], recorder: Recorder | DeviceRecorder) -> None:
        """From now on steps come by ``recorder``; ``table``: rows [name, shape, numel, order] of its layers."""
        self._begun.append((table, recorder))
        self._tables += 1

    def urgent(self) -> None:
        """The step just written must not wait."""
        self._wake.set()

    def log(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Queue values of the user's own. Raises FrameError or TypeError, having queued none, when one is unfit."""
        now = time.time()
        self._waiting.extend([_value(step, now, series, value) for series, value in values.items()])

    def event(self, step: int, name: str, text: str) -> None:
        """Queue an event."""
        self._waiting.append(Event(step, time.time(), frames.storable_text(name), frames.storable_text(text)))

    def sample(self, sample: Sample) -> None:
        """Queue what was measured beside the norms; its places are rows of the table begun last."""
        self._samples.append((self._tables, sample))

    def landscape(self, rows: LandscapeRows) -> None:
        """Queue what probes found."""
        self._landscape.append(rows)

    def commands(self) -> list[Mapping[str, Any]]:
        """What was asked of this run since the last call; nothing unless it allows control."""
        return self._sender.delivery.take_commands() if self._takes_commands else []

    def finish(self, state: str, reason: str, deadline: float | None = None) -> None:
        """Write the rest, say how the run ended, deliver what can be delivered by ``deadline`` (monotonic seconds).

        Safe to call again, and in a forked child, which has no say in its parent's run.
        """
        if os.getpid() != self._process or not self._finish_once.acquire(blocking=False):
            return
        try:
            self._finish(state, reason, deadline)
        finally:
            self._finished.set()
            atexit.unregister(self._at_exit)

    def _finish(self, state: str, reason: str, deadline: float | None) -> None:
        until = deadline if deadline is not None else time.monotonic() + EXIT_SECONDS
        self._end = (state, frames.storable_text(reason))
        self._wake.set()
        # At least a moment, even when other runs have used up the process's time: the spool must get the last steps.
        self._thread.join(max(0.2, until - time.monotonic()))
        online = self._settings.mode == "online"
        delivered = online and self._sender.close(self._journal.seq - 1, until)
        if not self._thread.is_alive():
            self._spool.close(delivered=delivered)
        if online and not delivered:
            say(f"not all is delivered yet; it waits in {self._spool.folder} for the next `gradwatch serve` or `sync`")
        elif not online:
            say(f"recorded in {self._spool.folder}; `gradwatch sync` or the next `gradwatch serve` delivers it")

    def abandon(self) -> None:
        """End a run whose monitor is gone; called by the garbage collector, which must not wait."""
        if self._finish_once.locked():
            return
        ending = threading.Thread(target=self.finish, args=("finished", "the model was let go"), daemon=True)
        try:
            ending.start()
        except RuntimeError:  # the interpreter is ending, and so does the run
            return

    def fail(self, reason: str) -> None:
        """End the run because the process ends by an exception."""
        self.finish("failed", reason, _process_deadline())

    def leave(self) -> None:
        """In a forked child: let go of what belongs to the parent."""
        atexit.unregister(self._at_exit)
        self._spool.unlock()

    def _at_exit(self) -> None:
        deadline = _process_deadline()
        self.finish("finished", "", deadline)
        # A run whose model was let go may be ending in a thread of its own, which the interpreter would not wait for.
        if os.getpid() == self._process:
            self._finished.wait(max(0.0, deadline - time.monotonic()))

    # The recording thread's side.

    def _run(self) -> None:
        while self._end is None:
            self._wake.wait(_TICK)
            urgent = self._wake.is_set()
            self._wake.clear()
            self._write(urgent)
            self._spool.tend()
        self._write(urgent=True)
        self._write(urgent=True)  # samples of a table that only now was written
        self._journal.finish(*self._end, time.time())

    def _write(self, urgent: bool) -> None:
        before = self._journal.seq
        for write in (self._write_samples, self._write_rows, self._write_waiting, self._write_landscape):
            try:
                write()
            except Exception as error:  # the thread must outlive whatever one odd value does
                if repr(error) not in self._failures:
                    self._failures.add(repr(error))
                    say(f"a frame could not be written: {error!r}")
        if self._journal.seq > before:
            self._sender.notify(urgent=urgent)

    def _write_rows(self) -> None:
        if self._recorder is not None:
            self._journal.steps_of(self._recorder)
        # A new table only after the last row of the old one, which may still be on its way from the device.
        while self._begun and (self._recorder is None or self._recorder.empty):
            table, self._recorder = self._begun.popleft()
            self._journal.table(table, self._recorder.dtype)
            self._tables_written += 1
            self._journal.steps_of(self._recorder)

    def _write_samples(self) -> None:
        ready = []
        while self._samples:
            table, sample = self._samples[0]
            if table > self._tables_written or not sample.ready():
                break
            self._samples.popleft()
            if table == self._tables_written:
                ready.append(sample)
        self._journal.samples(ready)

    def _write_waiting(self) -> None:
        values: list[Value] = []
        while self._waiting:
            item = self._waiting.popleft()
            if isinstance(item, Value):
                values.append(item)
            else:
                self._journal.event(item)
        self._journal.values(values)

    def _write_landscape(self) -> None:
        while self._landscape:
            self._journal.landscape(self._landscape.popleft())

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


def _value(step: int, now: float, series: str, value: float | Tensor) -> Value:
    if series in OWN_SERIES:
        raise FrameError("field", f"{series!r} is gradwatch's own series: log it under another name")
    frames.check_text("a series' name", series)
    if not isinstance(value, Tensor):
        return Value(step, now, series, float(value))
    if value.numel() != 1 or value.is_complex():
        raise TypeError(f"{series!r} must be one real number, not a tensor of shape {tuple(value.shape)}")
    # A clone, because the caller may go on adding to the tensor; it becomes a number in the other thread.
    return Value(step, now, series, value.detach().clone())


_deadlines: list[float] = []


def _process_deadline() -> float:
    """When the process must have ended, however many runs it has: two seconds after the first one began to end."""
    if not _deadlines:
        _deadlines.append(time.monotonic() + EXIT_SECONDS)
    return _deadlines[0]
