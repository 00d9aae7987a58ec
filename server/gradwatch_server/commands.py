"""Commands on their way to trainings: which of the open sockets lead to the writer that a run obeys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol

OBEYING_RANK: Final = 0  # what all ranks must do at one agreed step, this one tells the others


class Line(Protocol):
    """One open socket, as a command needs it."""

    def writers_of(self, run: str, attempt: int, rank: int) -> list[str]:
        """The writers still at work, of that place in a run, whose frames come over this socket."""
        ...

    def order(self, command: Mapping[str, Any]) -> None:
        """Send the command when the socket's own task comes to it."""
        ...


class Commands:
    """The lines of one server."""

    def __init__(self) -> None:
        self._lines: set[Line] = set()

    @contextmanager
    def line(self, line: Line) -> Iterator[None]:
        """Keep a line for as long as the block lasts."""
        self._lines.add(line)
        try:
            yield
        finally:
            self._lines.discard(line)

    def reaches(self, run: str, attempt: int) -> bool:
        """Whether a command to the attempt of a run would find its writer."""
        return bool(self._ways(run, attempt))

    def send(self, run: str, attempt: int, command: Mapping[str, Any]) -> bool:
        """Send a command to the attempt's writer; False where no line leads there any more."""
        ways = self._ways(run, attempt)
        for line, writer in ways:
            line.order({"writer": writer, **command})
        return bool(ways)

    def _ways(self, run: str, attempt: int) -> list[tuple[Line, str]]:
        # A socket that has silently died may carry the same writer as the one that took its place: both are told.
        return [(line, key) for line in self._lines for key in line.writers_of(run, attempt, OBEYING_RANK)]
