from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradwatch_server.commands import Commands


class Wire:
    """A line that leads to some writers: key to (run, attempt, rank)."""

    def __init__(self, **writers: tuple[str, int, int]) -> None:
        self.writers = writers
        self.ordered: list[Mapping[str, Any]] = []

    def writers_of(self, run: str, attempt: int, rank: int) -> list[str]:
        return [key for key, place in self.writers.items() if place == (run, attempt, rank)]

    def order(self, command: Mapping[str, Any]) -> None:
        self.ordered.append(command)


def test_a_command_goes_to_the_lines_that_lead_to_its_writer_while_they_are_open() -> None:
    commands = Commands()
    near, far = Wire(a=("r", 2, 0), b=("r", 2, 1), c=("r", 1, 0)), Wire(d=("s", 2, 0))
    with commands.line(near), commands.line(far):
        assert commands.reaches("r", 2) and not commands.reaches("r", 3) and not commands.reaches("t", 1)
        assert commands.send("r", 2, {"id": "1"})
        assert near.ordered == [{"writer": "a", "id": "1"}] and far.ordered == []
        assert not commands.send("r", 3, {"id": "2"})
    assert not commands.reaches("r", 2) and not commands.send("r", 2, {"id": "3"})
    assert len(near.ordered) == 1
