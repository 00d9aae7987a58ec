"""Following the path of the weights: a sketch of them now and then, and the loss that they really had."""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor

from gradwatch.probe.activity import Bench, Moment, Piece, Values, number_of
from gradwatch.probe.directions import norm
from gradwatch.probe.landscape_rows import LandscapeRows
from gradwatch.probe.reading import Reading
from gradwatch.probe.shadow import place
from gradwatch.probe.sketch import sketch
from gradwatch.probe.snapshots import Snapshots
from gradwatch.probe.surface_probe import SurfaceProbe

_SPARSER: Final = 200  # snapshots of a run of any length, within a factor of two: their spacing grows with it


class TrajectoryProbe:
    """Takes a snapshot of the weights every so many steps; the surface being drawn hears where they were."""

    weight = 1.0
    must_go_on = False

    def __init__(self, bench: Bench, surfaces: SurfaceProbe, snapshots: Snapshots | None) -> None:
        self.spent = 0.0
        self._bench, self._surfaces, self._snapshots = bench, surfaces, snapshots
        self._number = bench.number()
        self._first: int | None = None
        self._due = self._taken = 0

    def next_piece(self, moment: Moment) -> Piece | None:
        if moment.step < self._due:
            return None
        return Piece(
            "snapshot",
            lambda: self._take(moment.step),
            lambda values, seconds: self._add(moment.step, values, seconds),
            calls_probe=True,
        )

    def _take(self, step: int) -> Reading:
        self._first = step if self._first is None else self._first
        self._due = step + max(1, (step - self._first) // _SPARSER)
        weights = self._bench.originals
        place(self._bench.shadow.weights, weights)
        loss = self._bench.loss(self._bench.shadow.follow())
        if self._snapshots is not None and self._snapshots.wants(self._taken):
            self._snapshots.add(step, weights)
        self._taken += 1
        where: list[Tensor] = self._surfaces.coordinates(weights)
        return Reading([loss, norm(weights), sketch(weights, self._bench.seed), *where])

    def _add(self, step: int, values: Values, seconds: float) -> None:
        loss, length, sketched = number_of(values, 0), number_of(values, 1), values[2]
        columns: dict[str, list[Any]] = {
            "step": [step],
            "loss": [loss],
            "norm": [length],
            "seconds": [seconds],
            "sketch": [sketched],
        }
        parameters = sum(weight.numel() for weight in self._bench.originals)
        about = self._bench.about(seed=self._bench.seed, parameters=parameters, k=len(sketched))
        self._bench.send(LandscapeRows(self._number, "trajectory", "points", step, columns, about))
        self._surfaces.passed(step, loss, [float(value[0]) for value in values[3:]])
