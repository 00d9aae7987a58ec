"""A client of frames without torch, that keeps its own log of what it produced: ``streaming_client.py TRUTH``.

It drives the hook's own spool and sender, as a recording does, and ends once a file named TRUTH.stop exists. A step
counts as produced, and is logged, once the spool has taken its frame (``taken`` 1) or refused it (``taken`` 0).
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from gradwatch.delivery import Delivery
from gradwatch.discovery import find_server
from gradwatch.sender import Sender
from gradwatch.settings import Settings
from gradwatch.spool import Spool
from numpy.typing import NDArray

from tests.server.stream import Writer

ROWS: Final = 16  # steps of one frame
LAYERS: Final = ("a.weight", "a.bias", "b.weight")
# One step of the truth, as bits: what a float comparison would call equal, or unequal, is told apart.
STEP: Final = np.dtype([("step", "<i8"), ("taken", "u1"), ("loss", "<u8"), ("total", "<u4"), ("norms", "<u4", 3)])
VALUE: Final = np.dtype([("step", "<i8"), ("taken", "u1"), ("value", "<u8")])
BAD_EVERY: Final = 400  # steps between two episodes of non-finite gradients
BAD_STEPS: Final = 3  # steps of an episode
FIRST_BAD: Final = 37

ODD: Final = np.array([-0.0, 0.0, 5e-324, -2.2e-308, 1e308, -1e308, 1e-320, np.inf, -np.inf, np.nan], "<f8")
# Of losses and norms the rules make alerts where they are large, and hundreds of alerts would be all that is tested.
SMALL: Final = np.array([-0.0, 0.0, 5e-324, -2.2e-308, 1e-320], "<f8")
SMALL_NORMS: Final = np.array([0.0, 1.4e-45, 1.1754942e-38, 1e-40, 0.1], "<f4")


class _Impatient(Delivery):
    """Waits half a second, and not half a minute, where a server asked for patience: tests have none."""

    @property
    def hold(self) -> float:
        return min(0.5, float(vars(self)["hold"]))

    @hold.setter
    def hold(self, seconds: float) -> None:
        vars(self)["hold"] = seconds


class Client:
    """One run: ``name`` and ``seed`` are its own; ``pause`` seconds between two frames; ``cap``: bytes of its spool."""

    def __init__(self, truth: Path, *, name: str, seed: int, pause: float, cap: int) -> None:
        self._settings = Settings.gather(project="faults")
        self._random, self._pause = np.random.default_rng(seed), pause
        self._truth, self._stop = truth, Path(f"{truth}.stop")
        self._steps, self._values = _log(f"{truth}.steps"), _log(f"{truth}.values")
        self.writer = Writer(LAYERS, project="faults", run=name, name=name)
        self._spool = Spool(self._settings.spool, self.writer.key, cap)
        self._lost = 0
        self._step = 0
        self._sender = Sender(
            self._spool,
            find=self._find,
            token=None,
            on_server=lambda server: None,
            last_step=lambda: self._step - 1,
        )
        self._sender.delivery.__class__ = _Impatient

    def run(self) -> None:
        """Stream until told to stop; then deliver what can be delivered in 20 s."""
        for build in (self.writer.hello, self.writer.layer_table):
            seq = self.writer.seq
            self._spool.append(build(), seq, preamble=True)
        self._sender.start()
        while not self._stop.exists():
            self._produce()
            time.sleep(self._pause)
        self._append(self.writer.finish, reserved=True)
        delivered = self._sender.close(self.writer.seq - 1, time.monotonic() + 20)
        self._spool.close(delivered=delivered)
        sys.exit(0 if delivered else 3)

    def _find(self) -> str | None:
        """The server, waited for: the sender's own pauses would make every kill cost a second."""
        until = time.monotonic() + 5
        while time.monotonic() < until and not self._stop.exists():
            server = self._settings.server or find_server(self._settings.directory)
            if server is not None:
                return server
            time.sleep(random.uniform(0.01, 0.03))
        return None

    def _produce(self) -> None:
        steps = np.arange(self._step, self._step + ROWS)
        loss, total, norms = self._odd(steps)
        self._step += ROWS
        taken = self._append(lambda: self.writer.steps(steps, norms, loss=loss, total_norm=total))
        record = np.zeros(ROWS, STEP)
        record["step"], record["taken"] = steps, taken
        record["loss"], record["total"], record["norms"] = loss.view("<u8"), total.view("<u4"), norms.view("<u4")
        os.write(self._steps, record.tobytes())
        if taken and self._lost:
            self._tell_lost(int(steps[0]))
        self._lost += 0 if taken else ROWS
        value = self._random.choice(ODD, 1)
        taken = self._append(lambda: self.writer.scalars([("odd", int(steps[0]), float(value[0]))]))
        os.write(self._values, np.array([(steps[0], taken, value.view("<u8")[0])], VALUE).tobytes())
        self._sender.notify(urgent=True)

    def _odd(self, steps: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Losses, total norms and norms of layers: any finite number, but in the episodes, where all are bad."""
        rows = len(steps)
        loss = np.where(
            self._random.random(rows) < 0.2, self._random.choice(SMALL, rows), self._random.normal(size=rows)
        )
        total = np.where(
            self._random.random(rows) < 0.2, self._random.choice(SMALL_NORMS, rows), self._random.random(rows)
        ).astype("<f4")
        norms = self._random.random((rows, len(LAYERS))).astype("<f4")
        norms[:, 1] = self._random.choice(SMALL_NORMS, rows)
        bad = is_bad(steps)
        loss[bad] = self._random.choice([np.nan, np.inf, -np.inf], bad.sum())
        total[bad] = np.inf
        norms[bad] = self._random.choice(np.array([np.nan, np.inf], "<f4"), (bad.sum(), len(LAYERS)))
        return loss.astype("<f8"), total, norms

    def _append(self, build: Callable[[], bytes], *, reserved: bool = False) -> bool:
        seq = self.writer.seq
        if self._spool.append(build(), seq, reserved=reserved):
            return True
        self.writer.seq = seq
        return False

    def _tell_lost(self, before: int) -> None:
        lost, self._lost = self._lost, 0
        if not self._append(lambda: self.writer.dropped(before - lost, before - 1, lost), reserved=True):
            self._lost = lost


def is_bad(steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which steps belong to an episode of non-finite gradients."""
    found: NDArray[np.bool_] = (steps - FIRST_BAD) % BAD_EVERY < BAD_STEPS
    return found


def stream(truth: str, name: str = "run", seed: int = 0, pause: float = 0.01, cap: int = 1 << 30) -> None:
    """Be such a client."""
    Client(Path(truth), name=name, seed=seed, pause=pause, cap=cap).run()


def _log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


if __name__ == "__main__":
    stream(sys.argv[1])
