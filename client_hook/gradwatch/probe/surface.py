"""One surface: the loss on a grid of points over a plane, coarse to fine, one point at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from torch import Tensor

from gradwatch.probe.activity import Bench, Piece, number_of
from gradwatch.probe.grid import Grid
from gradwatch.probe.landscape_rows import LandscapeRows
from gradwatch.probe.plane import Plane
from gradwatch.probe.reading import Reading
from gradwatch.probe.shadow import place

SIZE: Final = 33  # points a side of the finest grid
_POINTS: Final = 8  # in one frame, so that the surface is seen to grow


class Surface:
    """The points of ``plane`` at ``step``, up to ``levels`` a side. ``request``: who asked, or an empty string."""

    def __init__(self, bench: Bench, plane: Plane, buffers: list[Tensor], step: int, levels: int, request: str) -> None:
        self.plane = plane
        self._bench, self._buffers, self._step = bench, buffers, step
        self._grid = Grid(levels, SIZE)
        self._number = bench.number()
        self._said: dict[str, Any] = {"size": SIZE, "levels": levels, "request": request, **plane.about}
        self._points: list[tuple[int, int, float, float]] = []

    def begin(self, units: Sequence[float]) -> None:
        """Tell of the plane, whose directions have these lengths, and of the path that led to it."""
        self._send(self.plane.rows(self._number, self._step, units, self._about()))
        self.send_path([(*point, float("nan")) for point in self.plane.path])

    def next_piece(self) -> Piece | None:
        """The next point; None when all are known."""
        cell = self._grid.next()
        if cell is None:
            self.send_points()
            return None
        return Piece(
            "point",
            lambda: self._loss(cell),
            lambda values, seconds: self._add(cell, number_of(values, 0), seconds),
            calls_probe=True,
        )

    def send_path(self, points: Sequence[tuple[int, float, float, float, float]]) -> None:
        """Rows of step, u, v, distance off the plane and loss (NaN: not known) of weights that the training had."""
        values = dict(zip(("step", "u", "v", "off", "loss"), zip(*points, strict=True), strict=True))
        self._send(LandscapeRows(self._number, "surface", "path", self._step, values, self._about()))

    def _loss(self, cell: tuple[int, int]) -> Reading:
        u, v = self.plane.at(cell, SIZE)
        place(self._bench.shadow.weights, self.plane.anchor, (u, self.plane.first), (v, self.plane.second))
        return Reading([self._bench.loss(self._buffers)])

    def _add(self, cell: tuple[int, int], loss: float, seconds: float) -> None:
        self._grid.add(*cell, loss)
        self._points.append((*cell, loss, seconds))
        if len(self._points) >= _POINTS:
            self.send_points()

    def send_points(self) -> None:
        """Send the points that wait to fill a frame."""
        if self._points:
            values = dict(zip(("i", "j", "loss", "seconds"), zip(*self._points, strict=True), strict=True))
            self._points = []
            self._send(LandscapeRows(self._number, "surface", "points", self._step, values, self._about()))

    def _about(self) -> dict[str, Any]:
        return self._bench.about(**self._said)

    def _send(self, rows: LandscapeRows) -> None:
        self._bench.send(rows)
