"""Reading a spool that its writer still fills."""

from __future__ import annotations

from gradwatch.segment import Closed, Segment
from gradwatch.spool import Spool
from gradwatch.walk import NOTHING, Batch, Walk


class Reader:
    """Reads the frames of a living spool in order, from the oldest that is left; knows where it stands.

    ``behind``: leave out what is there by now, which ends with the seq ``begun``.
    """

    def __init__(self, spool: Spool, *, behind: bool = False) -> None:
        self._spool = spool
        self._segment: Segment | None = None
        self._walk: Walk | None = None
        self.seq = -1  # of the last frame read
        if behind and (segments := spool.segments()):
            # The size first: a frame that comes in between is then read twice rather than never.
            at, self.seq = segments[-1].size, segments[-1].last
            self._enter(segments[-1]).go_to(at, self.seq)
        self.begun = self.seq

    def next_batch(self, most: int) -> Batch:
        """Whole frames of about ``most`` bytes together; NOTHING: nothing new."""
        while True:
            segments = self._spool.segments()
            if self._walk is None or self._segment not in segments:
                following = [segment for segment in segments if segment.last > self.seq]
            else:
                batch = self._here(most)
                if batch.data:
                    self.seq = batch.last
                    return batch
                following = segments[segments.index(self._segment) + 1 :]
            if not following:
                return NOTHING
            self._enter(following[0])

    def _enter(self, segment: Segment) -> Walk:
        self._segment, self._walk = segment, self._spool.walk(segment)
        return self._walk

    def _here(self, most: int) -> Batch:
        assert self._walk is not None
        try:
            return self._walk.next(most)
        except Closed:
            return NOTHING
