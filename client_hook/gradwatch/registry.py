"""Which monitor watches which model: so that a second ``watch`` replaces the first and the drop-ins find their monitor.

The model is held weakly: a forgotten model takes its monitor along, and the run is finished.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from gradwatch import uncaught

if TYPE_CHECKING:
    from gradwatch.monitor import Monitor

_monitors: weakref.WeakKeyDictionary[nn.Module, Monitor] = weakref.WeakKeyDictionary()
_fork_hooked = False


def remember(model: nn.Module, monitor: Monitor) -> None:
    global _fork_hooked
    if not _fork_hooked and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_silence)
        _fork_hooked = True
    _monitors[model] = monitor


def replace(model: nn.Module, optimizers: Sequence[Any]) -> None:
    """Finish the monitors that watch ``model`` or any of ``optimizers``. They stay known, and clip silently."""
    for known, monitor in list(_monitors.items()):
        if known is model or any(own is other for own in monitor.optimizers for other in optimizers):
            monitor.finish("finished", "watched again")


def owner_of(parameter: Tensor) -> Monitor | None:
    """The monitor that measures ``parameter``."""
    return next((monitor for monitor in list(_monitors.values()) if monitor.owns(parameter)), None)


def _silence() -> None:
    """A forked child has none of the threads: its monitors clip on and record nothing under their parent's name."""
    for monitor in list(_monitors.values()):
        monitor.go_silent()
    uncaught.forget()
