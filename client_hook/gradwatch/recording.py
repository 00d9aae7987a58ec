"""A run's recording: the thread that brings rows, values and events into the spool, and the sender behind it."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from torch import Tensor

from gradwatch import frames
from gradwatch.console import say
from gradwatch.discovery import find_server
from gradwatch.frames import FrameError
from gradwatch.journal import OWN_SERIES, Journal, Value
from gradwatch.recorder import Recorder
from gradwatch.sender import Sender
from gradwatch.settings import SPOOL_CAP, Settings
from gradwatch.spool import Spool

EXIT_SECONDS: Final = 2.0  # what ending a run may cost at most
_TICK: Final = 0.025  # seconds between two looks at the rows; half of the 50 ms in which a step shall reach the spool


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
class _Event:
    step: int
    time: float
    name: str
    text: str


class Recording:
    """Starts at the first clip (or logged value): only then start step and execution order are known.

    It knows neither monitor nor model, so that both can be collected while it lives. ``hello``: header of the hello
    frame without ``writer`` and ``seq``; ``address_of``: the run's id in addresses.
    """

    def __init__(self, settings: Settings, writer: str, hello: Mapping[str, Any], address_of: str) -> None:
        self._settings = settings
        self._address_of = address_of
        self._told: str | None = None
        self._failures: set[str] = set()
        self._recorder: Recorder | None = None
        self._begun: deque[tuple[list[list[Any]], Recorder]] = deque()
        self._waiting: deque[Value | _Event] = deque()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._finish_once = threading.Lock()
        self._spool = Spool(settings.spool, writer, SPOOL_CAP)
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
        """Queue values of the user's own. Raises FrameError for a name that cannot be stored."""
        now = time.time()
        for series, value in values.items():
            if series in OWN_SERIES:
                raise FrameError("field", f"{series!r} is gradwatch's own series: log it under another name")
            # A clone, because the caller may go on adding to the tensor; it becomes a number in the other thread.
            kept = value.detach().clone() if isinstance(value, Tensor) else float(value)
            self._waiting.append(Value(step, now, frames.check_text("a series' name", series), kept))

    def event(self, step: int, name: str, text: str) -> None:
        """Queue an event. Raises FrameError for a name that cannot be stored."""
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
        self._journal.finish(state, reason, time.time())
        online = self._settings.mode == "online"
        delivered = online and self._sender.close(self._journal.seq - 1, deadline)
        self._spool.close(delivered=delivered)
        if online and not delivered:
            say(f"not all is delivered yet; it waits in {self._spool.folder}: `gradwatch serve` will show it")

    def _at_exit(self) -> None:
        self.finish("finished", "")

    # The recording thread's side.

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(_TICK)
            urgent = self._wake.is_set()
            self._wake.clear()
            self._write(urgent)
        self._write(urgent=True)

    def _write(self, urgent: bool) -> None:
        before = self._journal.seq
        for write in (self._write_rows, self._write_waiting):
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
            self._journal.steps_of(self._recorder)

    def _write_waiting(self) -> None:
        values: list[Value] = []
        while self._waiting:
            item = self._waiting.popleft()
            if isinstance(item, Value):
                values.append(item)
            else:
                self._journal.event(item.step, item.time, item.name, item.text)
        self._journal.values(values)

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
