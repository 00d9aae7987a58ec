"""How a run ends when an exception ends the process: the run is told, the traceback stays as it was."""

from __future__ import annotations

import sys
import weakref
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradwatch.recording import Recording

_recordings: list[weakref.ref[Recording]] = []
_previous = None


def tell(recording: weakref.ref[Recording]) -> None:
    """Finish ``recording`` as failed, should an exception reach the top of the main thread."""
    global _previous
    if _previous is None:
        _previous = sys.excepthook
        sys.excepthook = _excepthook
    _recordings[:] = [known for known in _recordings if known() is not None]
    _recordings.append(recording)


def forget() -> None:
    """In a forked child: its exceptions say nothing about its parent's runs."""
    for known in _recordings:
        recording = known()
        if recording is not None:
            recording.leave()
    _recordings.clear()


def reason_of(error: BaseException) -> str:
    """Type and words of an exception, whatever its ``__str__`` does."""
    try:
        return f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception:
        return type(error).__name__


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if _previous is not None:
        _previous(kind, error, trace)
    for known in _recordings:
        recording = known()
        if recording is not None:
            recording.fail(reason_of(error))
