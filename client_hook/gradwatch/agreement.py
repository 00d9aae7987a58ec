"""On which step all ranks do what the first one was asked to do: on the same, or nobody does.

Ranks that change a threshold, or stop, at different steps part ways for good, and nothing keeps them in step with each
other but their own collectives, which must not be added to. So they settle it beside the training, through the store by
which torch.distributed found its processes; a thread asks there now and then, no collective is called, and a rank that
never asks can hang nobody. For each command, by number:

1. The first rank writes the command down (``ledger``), once every rank has said that it listens.
2. Each rank, at the beginning of one of its steps, promises a step a little ahead: it will not begin that step before
   it knows what was settled. Or it says why it cannot do what is asked.
3. What is settled is written once, by an atomic compare-and-set from nothing: by the first rank, as the largest of all
   promises; or as "nobody", by whichever rank sees that it will not come to that: it cannot, waited too long, or ends.
4. At the settled step every rank acts.

All act at one step or none does: the settled step is not before any promise, no rank begins the step it promised
without knowing it, and what is settled never changes. Promises lie about a second ahead, so in practice nobody waits;
a rank that is faster than its promise waits for ``_PATIENCE`` at most, and then settles for "nobody". Only a store that
stops to answer between promise and settlement can leave a rank in the dark: it does not act, and says so.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from gradwatch.ledger import Closed, Ledger, Store

_LOOK: Final = 0.25  # seconds between two looks at the store while nothing is asked
_LOOK_SOON: Final = 0.02  # ... while something is
_LOOKS: Final = 2_000  # a second, of all ranks together: what one store answers without notice
_MARGIN: Final = 2  # steps between a promise and the step it is made at, at least
_MARGIN_SECONDS: Final = 1.0  # ... and as many as take so long: two looks of everyone, and some
_PATIENCE: Final = 5.0  # seconds that a training waits at the step it promised
_LAST_PATIENCE: Final = 30.0  # ... and then for the store to say what became of it
_MISSED: Final = 2.0  # seconds in which ranks that do not listen may begin to
_CLOSING: Final = 0.5  # seconds that the first rank stays for the others, whose store it may be
_MOST: Final = 16  # commands that wait their turn
_FAILURES: Final = 3  # of the store in a row, after which it is given up
_NOBODY: Final = "nobody: "
_IN_THE_DARK: Final = "; whether the other ranks have acted cannot be known"


class Able(Protocol):
    """Who acts."""

    def refusal(self, command: Mapping[str, Any]) -> str:
        """Why this rank cannot do what is asked; empty: it can."""
        ...


class Verdict(NamedTuple):
    """What became of a command."""

    command: Mapping[str, Any]
    obstacle: str
    """Why nobody acts; empty: everybody acts now."""


class _Asked:
    """A command on its way. Each field is written by one thread: the training's, or the one that asks the store."""

    def __init__(self, number: int, command: Mapping[str, Any]) -> None:
        self.number, self.command = number, command
        # The training's.
        self.promise: int | None = None
        self.hindrance = ""
        # The asking thread's.
        self.is_promised = False
        self.step = 0
        self.obstacle = ""
        self.settled = threading.Event()

    def settle(self, said: str) -> None:
        if said.startswith(_NOBODY):
            self.obstacle = said.removeprefix(_NOBODY)
        else:
            self.step = int(said)
        self.settled.set()


class Agreement:
    """One monitor's, on each rank. ``channel``: the same on all ranks; ``store``: gives it, None once it is gone."""

    def __init__(self, channel: str, rank: int, ranks: int, store: Callable[[], Store | None]) -> None:
        self._channel, self._rank, self._ranks, self._store = channel, rank, ranks, store
        self._queue: deque[Mapping[str, Any]] = deque(maxlen=_MOST)
        self._asked: _Asked | None = None
        self._numbers = 0
        self._step = 0
        self._margin = _MARGIN
        self._pace = 0.0  # steps a second
        self._seen = (time.monotonic(), 0)
        self._missed_since: float | None = None
        self._listens = self._closing = False
        self._ended = ""
        self._process = os.getpid()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gradwatch-agree", daemon=True)
        self._thread.start()
        # Before the interpreter takes its threads down: one that is within the store would abort the process.
        atexit.register(self.close)

    # The training thread's side.

    def ask(self, command: Mapping[str, Any]) -> bool:
        """On the first rank: have all ranks do this. False: too many wait already."""
        if len(self._queue) >= _MOST:
            return False
        self._queue.append(command)
        self._wake.set()
        return True

    def due(self, step: int, able: Able) -> Verdict | None:
        """At the beginning of every step: what to do, or not to do, now. Waits only at a step that was promised."""
        self._step = step
        asked = self._asked
        if asked is None:
            return self._unheard() if self._ended else None
        if not asked.settled.is_set():
            if asked.promise is None:
                asked.hindrance = able.refusal(asked.command)
                asked.promise = step + self._margin
                self._wake.set()
                return None
            if step < asked.promise:
                return None
            if not self._hold(asked, step):
                self._asked = None
                return Verdict(asked.command, f"the store of torch.distributed does not answer{_IN_THE_DARK}")
        if not asked.obstacle and step < asked.step:
            return None
        self._asked = None
        return Verdict(asked.command, asked.obstacle)

    def _hold(self, asked: _Asked, step: int) -> bool:
        """Wait at the promised step until it is settled; whether it is."""
        if asked.settled.wait(_PATIENCE):
            return True
        asked.hindrance = f"it waited {_PATIENCE:g} s for the others at step {step}"
        self._wake.set()
        return asked.settled.wait(_LAST_PATIENCE)

    def _unheard(self) -> Verdict | None:
        return Verdict(self._queue.popleft(), self._ended) if self._queue else None

    def let_go(self) -> None:
        """Take part no more. What is not settled by now, nobody does."""
        if os.getpid() == self._process:  # in a forked child the event's lock may be held for ever
            self._closing = True
            self._wake.set()

    def close(self) -> None:
        """As ``let_go``, and wait for it; takes a second at most."""
        if os.getpid() == self._process:
            atexit.unregister(self.close)
            self.let_go()
            self._thread.join(2 * _CLOSING)

    # The asking thread's side.

    def _run(self) -> None:
        failures = 0
        while not self._ended:
            self._wake.wait(self._pause * (1 + failures))
            self._wake.clear()
            is_last = self._closing
            try:
                self._look(is_last)
                failures = 0
            except Exception as error:
                failures += 1
                if failures > _FAILURES:
                    self._end(f"the store of torch.distributed failed: {error!r}")
            if is_last:
                self._end("this rank has ended")

    @property
    def _pause(self) -> float:
        asked = self._asked
        is_busy = self._queue or (asked is not None and not asked.settled.is_set())
        return max(_LOOK_SOON if is_busy else _LOOK, self._ranks / _LOOKS)

    def _look(self, is_last: bool) -> None:
        store = self._store()  # for as long as this look takes, and no longer
        if store is None:
            self._end("torch.distributed has ended")
            return
        ledger = Ledger(store, self._channel, self._rank, self._ranks)
        if not self._listens:
            ledger.listen()
            self._listens = True
        self._measure_pace()
        asked = self._asked
        if asked is not None and not asked.settled.is_set():
            self._bring_on(ledger, asked, "it has ended" if is_last else asked.hindrance)
        elif asked is None and not is_last:
            self._asked = self._next_of_queue(ledger) if self._rank == 0 else self._next_written(ledger)
        if is_last:
            self._leave(ledger)

    def _next_of_queue(self, ledger: Ledger) -> _Asked | None:
        """On the first rank: write the next command down, if all listen."""
        if not self._queue:
            return None
        if not ledger.all_listen():
            self._missed_since = self._missed_since or time.monotonic()
            if time.monotonic() - self._missed_since < _MISSED:
                return None
            unheard = _Asked(-1, self._queue.popleft())
            named = _named(ledger.missing())
            unheard.settle(f"{_NOBODY}{named} not listen: watch with control=True, and alike, on every rank")
            return unheard
        self._missed_since = None
        asked = _Asked(self._numbers, self._queue[0])
        # Should the store fail in between, the same is written once more.
        ledger.write(asked.number, asked.command)
        self._queue.popleft()
        self._numbers += 1
        return asked

    def _next_written(self, ledger: Ledger) -> _Asked | None:
        """On the others: the next command that the first rank wrote down."""
        try:
            while (command := ledger.command(self._numbers)) is not None:
                # What was settled without this rank's promise was settled as "nobody".
                is_over = bool(ledger.settled(self._numbers))
                self._numbers += 1
                if not is_over:
                    return _Asked(self._numbers - 1, command)
        except Closed:
            self._leave(ledger)
            self._end("the first rank has ended")
        return None

    def _bring_on(self, ledger: Ledger, asked: _Asked, hindrance: str) -> None:
        """The next thing to be done about an open command."""
        said = ledger.settled(asked.number)
        if not said and not hindrance and self._rank == 0 and not ledger.all_listen():
            hindrance = f"{_named(ledger.missing())} not listen any more"
        if not said and hindrance:
            said = ledger.settle(asked.number, f"{_NOBODY}rank {self._rank}: {hindrance}")
        if not said and asked.promise is not None:
            if not asked.is_promised:
                ledger.promise(asked.number, asked.promise)
                asked.is_promised = True
            promises = ledger.promises(asked.number) if self._rank == 0 else []
            if promises:
                said = ledger.settle(asked.number, str(max(promises)))
        if said:
            asked.settle(said)

    def _leave(self, ledger: Ledger) -> None:
        ledger.leave()
        if self._rank != 0:
            return
        ledger.close(self._numbers)
        until = time.monotonic() + _CLOSING
        while len(ledger.missing()) < self._ranks and time.monotonic() < until:
            time.sleep(_LOOK_SOON)

    def _measure_pace(self) -> None:
        now, step = time.monotonic(), self._step
        seen_at, seen_step = self._seen
        if now - seen_at >= _LOOK / 2:
            self._seen = now, step
            # What it was remains in mind for a while: after a validation steps are as fast as before.
            self._pace = max((step - seen_step) / (now - seen_at), 0.9 * self._pace)
            self._margin = _MARGIN + math.ceil(self._pace * _MARGIN_SECONDS)

    def _end(self, obstacle: str) -> None:
        self._ended = self._ended or obstacle
        asked = self._asked
        if asked is not None and not asked.settled.is_set():
            asked.settle(f"{_NOBODY}{obstacle}{'' if asked.promise is None else _IN_THE_DARK}")


def _named(ranks: list[int]) -> str:
    named = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return f"rank {named} does" if len(ranks) == 1 else f"ranks {named} do"
