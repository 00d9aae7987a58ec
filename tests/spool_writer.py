"""A run in a spool, made without torch and as fast as frames can be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gradwatch.spool import Spool

from tests.server.stream import Writer

GIB = 1 << 30


class SpoolWriter:
    """One writer's frames in its spool; step n has the loss n."""

    def __init__(self, directory: Path, *, cap: int = GIB, layers: int = 3, **hello: Any) -> None:
        self.writer = Writer([f"layer{number}.weight" for number in range(layers)], **hello)
        self.spool = Spool(directory, self.writer.key, cap)
        self.step = 0
        self._put(self.writer.hello(), preamble=True)
        self._put(self.writer.layer_table(), preamble=True)

    def steps(self, rows: int, frames: int = 1) -> None:
        """The next ``rows`` steps in each of ``frames`` frames."""
        for _ in range(frames):
            steps = np.arange(self.step, self.step + rows)
            self._put(self.writer.steps(steps, loss=steps))
            self.step += rows

    def scalars(self) -> None:
        self._put(self.writer.scalars([("mine", self.step, 1.0)]))

    def finish(self) -> None:
        self._put(self.writer.finish(), reserved=True)

    def end(self) -> None:
        """Leave everything to whoever delivers leftovers."""
        self.finish()
        self.spool.close(delivered=False)

    def _put(self, data: bytes, **options: bool) -> None:
        if not self.spool.append(data, self.writer.seq - 1, **options):
            raise AssertionError("the spool has no room")


def stored_steps(server: Any, writer: Writer, last: int) -> list[int]:
    """Steps that a server has of a writer's run, whose losses must be their numbers."""
    found: list[int] = []
    first: int | None = 0
    while first is not None:
        page = server.get(f"/api/runs/{writer.run}/series?names=loss&columns=0&first={first}&last={last}")
        rows = zip(page["step"], page["series"]["loss"]["value"], strict=True)
        here = {step: float(value) for step, value in rows if value is not None}
        assert all(step == value for step, value in here.items())
        found += here
        first = page["next"]
    return found
