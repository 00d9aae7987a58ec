"""Which stretch of which writer a viewer sees: a newer attempt at step s hides steps >= s of the older ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradwatch.frames import MAX_COUNT

from .reading import Stream


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps ``first`` to ``last`` of one writer; of what it probes, all up to ``until``.

    A probe may arrive before the step it is about, so the writer's last step does not end its probes.
    """

    stream: Stream
    first: int
    last: int
    until: int = MAX_COUNT


@dataclass(frozen=True, slots=True)
class View:
    """A run as one line of steps."""

    run: str
    segments: tuple[Segment, ...]  # in step order

    @property
    def first_step(self) -> int | None:
        """The first step that can be seen, or None."""
        return min((s.first for s in self.segments), default=None)

    @property
    def thinned_to(self) -> int:
        """Of layers of steps before this one only the pyramid is left."""
        return max((s.stream.thinned_to for s in self.segments), default=0)

    @property
    def last_step(self) -> int | None:
        """The last step that can be seen, or None."""
        return max((s.last for s in self.segments), default=None)


def make_view(
    run: str, streams: Sequence[Stream], starts: Mapping[int, int], attempt: int | None, rank: int | None
) -> View:
    """The view of ``attempt`` alone, or of the chain of all; of ``rank``, or of each attempt's lowest rank.

    ``starts``: the first step of every attempt by its number.
    """
    segments: list[Segment] = []
    hidden_from: int | None = None
    for number in sorted(starts, reverse=True):
        if attempt is not None and number != attempt:
            continue
        mine = [s for s in streams if s.attempt == number and (rank is None or s.rank == rank)]
        chosen = min(mine, key=lambda s: (s.rank, s.id), default=None)
        if chosen and chosen.first_step is not None and chosen.last_step is not None:
            until = MAX_COUNT if hidden_from is None else hidden_from - 1
            last = min(chosen.last_step, until)
            if chosen.first_step <= last:
                segments.append(Segment(chosen, chosen.first_step, last, until))
        hidden_from = starts[number] if hidden_from is None else min(hidden_from, starts[number])
    return View(run, tuple(sorted(segments, key=lambda s: s.first)))
