"""What people may ask of a running training: another threshold, a checkpoint, its end, a surface of the loss.

Commands come from the server, to the first rank alone, and are done in the training thread at the beginning of a
``clip``, before anything is measured: weights are then those after the previous step, gradients those of the coming
one. A process on its own does them at its next clip; of several ranks all do them at one agreed step, or none does
(``agreement``). What became of each is an event, with who asked.
"""

from __future__ import annotations

import hashlib
import math
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from gradwatch import ranks
from gradwatch.agreement import Agreement
from gradwatch.clipping.strategy import Strategy
from gradwatch.console import say
from gradwatch.recording import Sink

if TYPE_CHECKING:
    from gradwatch.monitor import Monitor

OnCheckpoint = Callable[["Monitor"], object]

SET_THRESHOLD: Final = "set_threshold"
STOP: Final = "stop"
CHECKPOINT: Final = "checkpoint"
PROBE_LANDSCAPE: Final = "probe_landscape"
_EVENT: Final = "control"  # as the server knows what the hook has to say of commands
_MOST_SURFACES: Final = 8  # that wait for the prober

_watched: Counter[str] = Counter()


class Control:
    """One monitor's. ``offered``: the commands that its script allows; ``names``: its parameters'."""

    def __init__(self, offered: Iterable[str], names: Iterable[str], on_checkpoint: OnCheckpoint | None = None) -> None:
        self.should_stop = False
        self._offered = sorted(offered)
        self._on_checkpoint = on_checkpoint
        # Ranks know each other's monitors by their parameters and, where they watch such a model again, by order.
        self._channel = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        _watched[self._channel] += 1
        self._channel += f"-{_watched[self._channel]}"
        self._surfaces: deque[Mapping[str, Any]] = deque(maxlen=_MOST_SURFACES)
        self._sink: Sink | None = None
        self._agreement: Agreement | None = None
        self._is_own_threshold = True

    def start(self, monitor: Monitor, sink: Sink) -> None:
        """From now on take what ``sink`` is told. At the first step, so that torch.distributed is there if it ever is.

        Ranks that count their steps from different numbers could not agree on one, and do not hear each other.
        """
        self._sink = sink
        if ranks.can_talk() and ranks.world_size() > 1:
            channel = f"{self._channel}-{monitor.step}"
            self._agreement = Agreement(channel, ranks.rank(), ranks.world_size(), ranks.shared_store)
            weakref.finalize(monitor, self._agreement.let_go).atexit = False

    def take_surfaces(self) -> list[Mapping[str, Any]]:
        """The surfaces asked for since the last call: for the first rank's prober, as no other rank takes part."""
        return [self._surfaces.popleft() for _ in range(len(self._surfaces))]

    def begin_step(self, monitor: Monitor, strategy: Strategy) -> None:
        """At every clip, in the user's grad mode. ``strategy``: what this clip goes by."""
        if self._sink is None:
            return
        try:
            self._is_own_threshold = strategy is monitor.strategy
            commands = self._sink.commands()
            if commands:
                self._sort(monitor, commands)
            if self._agreement is not None:
                verdict = self._agreement.due(monitor.step, self)
                if verdict is not None:
                    self._conclude(monitor, *verdict)
        except Exception as error:
            self._tell(monitor, f"a command could not be done: {error!r}")

    def refusal(self, command: Mapping[str, Any]) -> str:
        """Why this rank cannot do what is asked; empty: it can."""
        name = command.get("command")
        if name not in self._offered:
            return f"{name!r} is not among what its script offers, which is {', '.join(self._offered)}"
        if name != SET_THRESHOLD:
            return ""
        if not self._is_own_threshold:
            return "its clips go by the threshold that each call says, as gradwatch.clip_grad_norm_ does"
        value = command.get("value")
        fit = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
        return "" if fit else f"a threshold must be a finite number above 0, not {value!r}"

    def let_go(self) -> None:
        """Take no more commands; safe in a forked child, too, which has none of the threads."""
        self._sink = None
        if self._agreement is not None:
            self._agreement.let_go()

    def close(self) -> None:
        """As ``let_go``, and wait, for a second at most, until the other ranks can know of it."""
        self.let_go()
        if self._agreement is not None:
            self._agreement.close()
        self._on_checkpoint = None

    def _sort(self, monitor: Monitor, commands: Iterable[Mapping[str, Any]]) -> None:
        for command in commands:
            if command.get("command") == PROBE_LANDSCAPE and PROBE_LANDSCAPE in self._offered:
                self._surfaces.append(command)
            elif self._agreement is not None:
                if not self._agreement.ask(command):
                    self._conclude(monitor, command, "too many commands wait already")
            elif ranks.world_size() > 1:
                self._conclude(monitor, command, "the other ranks cannot be told without torch.distributed")
            else:
                self._conclude(monitor, command, self.refusal(command))

    def _conclude(self, monitor: Monitor, command: Mapping[str, Any], obstacle: str) -> None:
        """Do the command unless there is an obstacle; the first rank says so for all."""
        name, rank = command.get("command"), ranks.rank()
        asker = f"; asked for by {command.get('by') or 'someone'}"
        if obstacle:
            if rank == 0:
                self._tell(monitor, f"{name} was not done: {obstacle}{asker}")
            return
        try:
            done = self._act(monitor, command)
        except Exception as error:
            self._tell(monitor, f"{name} failed{f' on rank {rank}' if self._agreement else ''}: {error!r}{asker}")
            return
        if rank == 0:
            together = f", on all {ranks.world_size()} ranks" if self._agreement else ""
            self._tell(monitor, f"{name}: {done}{together}{asker}")

    def _act(self, monitor: Monitor, command: Mapping[str, Any]) -> str:
        """Do it, and say what was done."""
        match command["command"]:
            case "set_threshold":
                before, monitor.threshold = monitor.threshold, command["value"]
                return f"from {before:g} to {monitor.threshold:g}"
            case "checkpoint":
                assert self._on_checkpoint is not None
                self._on_checkpoint(monitor)
                return f"on_checkpoint was called, with the weights before step {monitor.step}"
        self.should_stop = True
        return "monitor.should_stop is true from here on"

    def _tell(self, monitor: Monitor, text: str) -> None:
        say(f"step {monitor.step}: {text}")
        if self._sink is not None:
            self._sink.event(monitor.step, _EVENT, text)
