"""Probing the surroundings of the weights: one surface after the other, those asked for first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from gradwatch.frames import MAX_COUNT
from gradwatch.probe.activity import Bench, Moment, Piece, Values
from gradwatch.probe.plane import PLANES, Plane, random_plane, solve, trajectory_plane, update_plane
from gradwatch.probe.principal import Principal, gram, principal
from gradwatch.probe.reading import Reading
from gradwatch.probe.shadow import copies
from gradwatch.probe.snapshots import Snapshot, Snapshots
from gradwatch.probe.surface import Surface

# Points a side of surfaces that nobody asked for: each plane once quickly, from then on finely.
_FIRST_LEVELS: Final = 9
_LEVELS: Final = 17
_OFFERED: Final = (5, 9, 17, 33)
_MOST_REQUESTS: Final = 8
_PATH_POINTS: Final = 3  # snapshots that a trajectory plane needs beside the present weights


@dataclass(slots=True, eq=False)
class _Opening:
    """A surface on its way from the wish to its first point."""

    plane: str
    levels: int
    seed: int
    request: str
    old: list[Tensor] | None = None
    """For the update plane: the weights before the update."""
    anchor: list[Tensor] | None = None
    """For the trajectory plane: the weights at ``step``, until its directions are known."""
    path: Sequence[Snapshot] = ()
    found: Principal | None = None
    step: int = 0


class SurfaceProbe:
    """Opens a plane, goes through its points, and opens the next: in turn the planes of ``PLANES``."""

    weight = 2.0

    def __init__(self, bench: Bench, snapshots: Snapshots | None) -> None:
        self.spent = 0.0
        self._bench, self._snapshots = bench, snapshots
        self._requests: deque[Mapping[str, Any]] = deque(maxlen=_MOST_REQUESTS)
        self._turns = count()
        self._opening: _Opening | None = None
        self._surface: Surface | None = None
        self._is_asked = False
        self._is_done = False

    def request(self, command: Mapping[str, Any]) -> None:
        """Take this plane next: ``plane``, ``levels``, ``seed`` and ``id`` of a control frame, or leave it unanswered
        when it asks for what there is not."""
        seed = command.get("seed")
        fit = isinstance(seed, int) and 0 <= seed <= MAX_COUNT
        if command.get("plane") in PLANES and command.get("levels") in _OFFERED and fit:
            self._requests.append(command)

    @property
    def is_asked(self) -> bool:
        """Whether somebody waits for a surface."""
        return bool(self._requests) or self._is_asked

    @property
    def must_go_on(self) -> bool:
        return self._opening is not None and self._opening.old is not None

    def next_piece(self, moment: Moment) -> Piece | None:
        waits = self._requests and not self._is_asked
        if waits:
            self.flush()
        if self._opening is None and self._surface is not None and not self._is_done and not waits:
            piece = self._surface.next_piece()
            if piece is not None:
                return piece
            self._is_done, self._is_asked = True, False
        if self._opening is None:
            self._opening = self._next_wish()
            self._is_asked = bool(self._opening.request)
        return self._open(self._opening, moment)

    def flush(self) -> None:
        """Send what is known by now."""
        if self._surface is not None:
            self._surface.send_points()

    def coordinates(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """What ``passed`` needs to know of where the weights are now; nothing while there is no plane."""
        return [] if self._surface is None else self._surface.plane.coordinates(weights)

    def passed(self, step: int, loss: float, products: Sequence[float]) -> None:
        """The path goes on: at ``step`` the weights had this loss and were where ``coordinates`` said."""
        if self._surface is not None and products:
            self._surface.send_path([(step, *solve(*products), loss)])

    # Opening.

    def _next_wish(self) -> _Opening:
        if self._requests:
            wish = self._requests.popleft()
            return _Opening(wish["plane"], wish["levels"], wish["seed"], str(wish.get("id")))
        turn = next(self._turns)
        again, plane = divmod(turn, len(PLANES))
        return _Opening(PLANES[plane], _LEVELS if again else _FIRST_LEVELS, again, "")

    def _open(self, opening: _Opening, moment: Moment) -> Piece | None:
        """The next piece of work on the way to a plane."""
        match opening.plane:
            case "update" if opening.old is None:
                return Piece("update plane", lambda: self._take_old(opening))
            case "update":
                return self._opened_by(lambda: self._update_plane(opening, moment.step), opening, moment.step)
            case "trajectory" if opening.found is not None:
                return self._opened_by(lambda: self._trajectory_plane(opening), opening, opening.step)
            case "trajectory" if self._snapshots is not None and len(self._snapshots.taken) >= _PATH_POINTS:
                return Piece(
                    "gram", lambda: self._take_gram(opening, moment.step), lambda values, _: self._span(opening, values)
                )
        return self._opened_by(lambda: self._random_plane(opening.seed, moment.step), opening, moment.step)

    def _take_old(self, opening: _Opening) -> None:
        self._surface = None  # its memory is needed
        opening.old = copies(self._bench.originals)

    def _take_gram(self, opening: _Opening, step: int) -> Reading:
        assert self._snapshots is not None
        opening.path, opening.anchor, opening.step = list(self._snapshots.taken), copies(self._bench.originals), step
        self._surface = None  # its memory is needed
        return Reading([gram([kept.weights for kept in opening.path], opening.anchor)])

    def _span(self, opening: _Opening, values: Values) -> None:
        rows = len(opening.path)
        found = principal(torch.from_numpy(values[0].reshape(rows, rows).copy()))
        if found is None:
            opening.plane = "random"
        opening.found = found

    def _update_plane(self, opening: _Opening, step: int) -> Plane:
        assert opening.old is not None
        old, opening.old = opening.old, None
        originals = self._bench.originals
        gradient = [
            weight.new_zeros(weight.shape) if weight.grad is None else weight.grad.detach().to_dense().clone()
            for weight in originals
        ]
        return update_plane(old, copies(originals), gradient, step)

    def _random_plane(self, seed: int, step: int) -> Plane:
        return random_plane(copies(self._bench.originals), seed, step)

    def _trajectory_plane(self, opening: _Opening) -> Plane:
        assert opening.anchor is not None and opening.found is not None
        return trajectory_plane(opening.anchor, opening.path, opening.found, opening.step)

    def _opened_by(self, make: Callable[[], Plane], opening: _Opening, step: int) -> Piece:
        """A piece that makes the plane, reads its lengths and, once they are known to be sound, begins the surface."""
        surface: list[Surface] = []

        def begin() -> Reading:
            self._opening = self._surface = None
            plane, buffers = make(), self._bench.shadow.follow()
            surface.append(Surface(self._bench, plane, buffers, step, opening.levels, opening.request))
            return Reading([plane.units])

        def finish(values: Values, seconds: float) -> None:
            lengths = values[0]
            if np.isfinite(lengths).all() and (lengths > 0).all():
                self._surface, self._is_done = surface[0], False
                self._surface.begin(lengths.tolist())
            elif opening.request and opening.plane != "random":
                # No update, or nothing across it: the one who asked gets another plane.
                self._opening = _Opening("random", opening.levels, opening.seed, opening.request)

        return Piece(f"{opening.plane} plane", begin, finish)
