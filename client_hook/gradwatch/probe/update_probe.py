"""Probing an update: the loss along the step that was taken and, at a clip event, where the unclipped one had led."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from gradwatch.measure.learning_rate import learning_rate
from gradwatch.probe.activity import Bench, Moment, Piece, Values, number_of
from gradwatch.probe.landscape_rows import LandscapeRows
from gradwatch.probe.line import Line
from gradwatch.probe.pieces import widest
from gradwatch.probe.reading import Reading
from gradwatch.probe.shadow import copies, place_between
from gradwatch.probe.stability import Stability, stability_threshold
from gradwatch.probe.unclipped import Unclipped

_PATIENCE: Final = 32  # steps that an update probe waits for a clip event, at every second turn
_POINTS: Final = 4  # of a line in one frame, so that it is seen to grow
_AGREEMENTS: Final = 2  # steps that may differ from the closed form until verdicts are given up


class UpdateProbe:
    """One probe after the other, each of one step of the training: its line, and at clip events its verdict.

    The weights before the step are copied at a clip chosen in advance, those after it at the next.
    """

    weight = 2.0

    def __init__(self, bench: Bench, *, clips: bool) -> None:
        self.spent = 0.0
        self._bench = bench
        self._unclipped = Unclipped(bench) if clips else None
        self._wants_verdict = clips
        self._waited = 0
        self._probe: _Update | None = None
        self._settling = False
        self._rate = torch.zeros((), dtype=torch.float64)

    @property
    def must_go_on(self) -> bool:
        return self._settling

    def next_piece(self, moment: Moment) -> Piece | None:
        if self._settling:
            return Piece("update", self._settle, self._settled)
        if self._probe is None:
            return self._capture(moment)
        return self._probe.next_piece()

    def after_change(self) -> None:
        """The gradients are now those that the optimizer gets."""
        if self._settling and self._unclipped is not None:
            self._unclipped.after_change()

    def flush(self) -> None:
        """Send what is known by now."""
        if self._probe is not None:
            self._probe.send_points()

    # The two clips around a step.

    def _capture(self, moment: Moment) -> Piece | None:
        unclipped = self._unclipped
        if self._wants_verdict and unclipped is not None:
            if moment.clipped is False and self._waited < _PATIENCE:
                self._waited += 1
                return None
            reason = unclipped.unsupported()
            if reason is not None:
                self._give_up_verdicts(moment.step, reason)
        with_verdict = self._wants_verdict and self._unclipped is not None and moment.clipped is not False
        self._waited = 0
        return Piece("update", lambda: self._take_old(moment, with_verdict))

    def _give_up_verdicts(self, step: int, reason: str) -> None:
        self._unclipped, self._wants_verdict = None, False
        rows = LandscapeRows(self._bench.number(), "verdict", "unsupported", step, {}, {"reason": reason})
        self._bench.send(rows)

    def _take_old(self, moment: Moment, with_verdict: bool) -> None:
        # Which of several optimizers takes the step is not known here, nor its rate.
        optimizers = self._bench.optimizers if len(self._bench.optimizers) == 1 else ()
        rate, stability = learning_rate(optimizers), None
        if optimizers and not isinstance(rate, Tensor):  # a rate on a device is read later, without waiting
            stability = stability_threshold(optimizers[0])
        self._probe = _Update(self._bench, moment.step, copies(self._bench.originals), stability)
        self._rate = torch.as_tensor(rate, dtype=torch.float64).clone()
        if self._unclipped is not None and with_verdict:
            self._unclipped.take(moment.clipped)
        self._settling = True

    def _settle(self) -> Reading:
        assert self._probe is not None
        self._settling = False
        known = [] if self._unclipped is None else self._unclipped.settle(self._probe.old)
        return Reading([self._probe.settle(), self._rate, *known])

    def _settled(self, values: Values, seconds: float) -> None:
        """Both ends of the step are known: begin with the points, unless there was no step."""
        assert self._probe is not None
        unclipped, raw, moved = self._unclipped, None, number_of(values, 0) > 0
        self._wants_verdict = unclipped is not None and not self._wants_verdict
        if unclipped is not None and not moved:
            unclipped.release()  # a step left out, by a scaler for example, says nothing of the formula
        elif unclipped is not None and len(values) > 2:
            if unclipped.disagrees(agrees=bool(values[2][0]), times=_AGREEMENTS):
                reason = "the optimizer's step is not what its formula gives: is the rate or a gradient changed after?"
                self._give_up_verdicts(self._probe.step, reason)
            elif values[2][0] and values[3][0]:
                raw = unclipped.weights
            unclipped.release()
        if not moved:
            self._probe = None
            return
        self._probe.begin(number_of(values, 0), number_of(values, 1), raw, self._done)

    def _done(self) -> None:
        self._probe = None


class _Update:
    """One update: the weights before and after it, and what is known of the loss between and beyond them."""

    def __init__(self, bench: Bench, step: int, old: list[Tensor], stability: Stability | None) -> None:
        self.old, self.step = old, step
        self._bench, self._stability = bench, stability
        self._new: list[Tensor] = []
        self._buffers: list[Tensor] = []
        self._raw: list[Tensor] | None = None
        self._line = Line()
        self._number = -1
        self._done: Callable[[], None] = lambda: None
        self._update_norm = self._rate = 0.0
        self._verdict: list[list[float]] = []
        self._points: list[tuple[float, float, float]] = []
        self._seconds: list[float] = []

    def settle(self) -> Tensor:
        """Copy the weights after the step; the length of the step, 0-dimensional."""
        self._new = copies(self._bench.originals)
        self._buffers = self._bench.shadow.follow()
        return distance(self._new, self.old)

    def begin(self, norm: float, rate: float, raw: Sequence[Tensor] | None, done: Callable[[], None]) -> None:
        """The step had the length ``norm``; ``raw``: the weights after the unclipped one, at a clip event."""
        self._update_norm, self._rate, self._done = norm, rate, done
        self._raw = None if raw is None else list(raw)
        self._number = self._bench.number()

    def next_piece(self) -> Piece | None:
        if self._number < 0:
            return None
        if self._raw is not None:
            batch, at = divmod(sum(len(row) for row in self._verdict), 3)
            return Piece(
                "point",
                lambda: self._loss((0.0, 1.0, None)[at], batch),
                lambda values, seconds: self._add_verdict(batch, number_of(values, 0), seconds),
                calls_probe=True,
            )
        alpha = self._line.next()
        if alpha is None:
            self._finish()
            return None
        return Piece(
            "point",
            lambda: self._loss(alpha, 0),
            lambda values, seconds: self._add(alpha, number_of(values, 0), seconds),
            calls_probe=True,
        )

    def _loss(self, alpha: float | None, batch: int) -> Reading:
        weights = self._bench.shadow.weights
        if alpha is None:
            assert self._raw is not None
            torch._foreach_copy_(weights, self._raw)
        else:
            place_between(weights, self.old, self._new, alpha)
        return Reading([self._bench.loss(self._buffers, batch)])

    def _add_verdict(self, batch: int, loss: float, seconds: float) -> None:
        if len(self._verdict) == batch:
            self._verdict.append([])
            self._seconds.append(0.0)
        self._verdict[batch].append(loss)
        self._seconds[batch] += seconds
        if len(self._verdict) == len(self._bench.closures) and len(self._verdict[-1]) == 3:
            self._send_verdict()
            self._raw = None
            for alpha, loss in ((0.0, self._verdict[0][0]), (1.0, self._verdict[0][1])):
                self._line.add(alpha, loss)
                self._points.append((alpha, loss, 0.0))

    def _send_verdict(self) -> None:
        base, clipped, raw = zip(*self._verdict, strict=True)
        values = {"base": base, "clipped": clipped, "raw": raw, "seconds": self._seconds}
        about = self._bench.about(batches=len(self._bench.closures))
        self._bench.send(LandscapeRows(self._number, "verdict", "points", self.step, values, about))
        self._number = self._bench.number()  # the line is a probe of its own

    def _add(self, alpha: float, loss: float, seconds: float) -> None:
        self._line.add(alpha, loss)
        self._points.append((alpha, loss, seconds))
        if len(self._points) >= _POINTS:
            self.send_points()

    def send_points(self) -> None:
        """Send the points that wait to fill a frame."""
        if self._points:
            alphas, losses, seconds = zip(*self._points, strict=True)
            values = {"alpha": alphas, "loss": losses, "seconds": seconds}
            self._points = []
            self._bench.send(LandscapeRows(self._number, "line", "points", self.step, values, self._bench.about()))

    def _finish(self) -> None:
        self.send_points()
        found, (spent, elapsed) = self._line.summary(), self._bench.cost()
        stability = self._stability
        numbers = {
            "base": found.base,
            "taken": found.taken,
            "best_alpha": found.best_alpha,
            "critical_low": found.critical_low,
            "critical_high": found.critical_high,
            "learning_rate": self._rate,
            "stability_threshold": np.nan if stability is None else stability.value,
            "update_norm": self._update_norm,
            "spent": spent,
            "elapsed": elapsed,
        }
        about = self._bench.about(rule="" if stability is None else stability.rule)
        values = {name: [value] for name, value in numbers.items()}
        self._bench.send(LandscapeRows(self._number, "line", "summary", self.step, values, about))
        self._done()


def distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Length of the difference, 0-dimensional, with one tensor's worth of memory beside them."""
    squares = []
    for a, b in zip(one, other, strict=True):
        length = torch.linalg.vector_norm(a - b, dtype=torch.promote_types(a.dtype, torch.float32))
        squares.append(length.to(widest(a.device)).square())
    return torch.stack([square.to(squares[0].device) for square in squares]).sum().sqrt()
