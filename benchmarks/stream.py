"""What a training's hook would send, without a training: frames of every step with norms as networks have them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from gradwatch import frames
from gradwatch.frames import Kind
from numpy.typing import NDArray

Norms = NDArray[np.float32]

FRAME_BYTES: Final = 128 << 10  # of norms in one steps frame, and at most so many rows: as the hook sends them
FRAME_ROWS: Final = 64
# The hook's own columns, in its order.
SCALARS: Final[Mapping[str, str]] = {
    "loss": "f8",
    "total_norm": "f4",
    "clip_coefficient": "f4",
    "threshold": "f4",
    "clipped": "u1",
    "nonfinite": "u4",
    "learning_rate": "f8",
    "loss_scale": "f8",
    "step_seconds": "f8",
    "skipped": "u1",
    "clip_cosine": "f4",
    "sample_seconds": "f4",
}
_DTYPES: Final = {"u1": "u1", "u4": "<u4", "i8": "<i8", "f4": "<f4", "f8": "<f8"}


def walking_norms(steps: int, layers: int, seed: int) -> Norms:
    """Steps x layers: logarithms that walk about a level of their own (AR(1), 0.98, and 0.1 of noise a step)."""
    random = np.random.default_rng(seed)
    level = random.normal(-3, 1.5, layers)
    walk = random.normal(0, 0.5, layers)
    norms = np.empty((steps, layers), np.float32)
    for row in norms:
        walk = 0.98 * walk + 0.1 * random.standard_normal(layers)
        row[:] = np.exp(level + walk)
    return norms


def frame_rows(layers: int) -> int:
    """Steps in one frame, as the hook cuts them."""
    return max(1, min(FRAME_ROWS, FRAME_BYTES // (4 * layers)))


class Training:
    """The frames of one writer; ``run`` names its run, in the project "benchmark"."""

    def __init__(self, run: str, layers: int) -> None:
        self.writer = secrets.token_hex(16)
        self.run = frames.run_id("benchmark", run)
        self.seq = 0
        self._name, self._layers = run, layers
        columns = [["step", "i8", 1], ["time", "f8", 1], *([name, dtype, 1] for name, dtype in SCALARS.items())]
        self._columns = [*columns, ["grad_norm", "f4", layers], ["absent", "u1", (layers + 7) // 8]]
        self._table = ""

    def opening(self) -> bytes:
        """Hello and layer table."""
        hello = {
            "project": "benchmark",
            "run": self._name,
            "launch": self.writer[:8],
            "rank": 0,
            "world_size": 1,
            "start_step": 0,
            "name": self._name,
            "group": None,
            "tags": [],
            "config": {},
            "total_steps": None,
            "clip": {"strategy": "GlobalNorm", "max_norm": 1.0, "norm_type": 2.0},
            "norm_type": 2.0,
            "nonfinite": "record",
            "host": {"hostname": "benchmark"},
            "started_at": time.time(),
            "client": "benchmark",
        }
        table = [[f"blocks.{n // 12}.part{n % 12}.weight", [64, 64], 4096, n] for n in range(self._layers)]
        self._table = frames.table_hash(None, table, self._columns)
        layers = {"table": self._table, "base": None, "layers": table, "columns": self._columns}
        return self._frame(Kind.HELLO, hello) + self._frame(Kind.LAYERS, layers)

    def steps(self, first: int, norms: Norms) -> bytes:
        """One frame of the steps from ``first`` on."""
        rows = len(norms)
        total = np.sqrt(np.einsum("ij,ij->i", norms, norms))
        values: dict[str, Any] = {"loss": 2.0 + 0.1 * np.log(total), "total_norm": total, "clip_coefficient": 1.0}
        values |= {
            "threshold": 100.0,
            "learning_rate": 1e-3,
            "loss_scale": 1.0,
            "step_seconds": 0.1,
            "clip_cosine": 1.0,
        }
        columns = [np.arange(first, first + rows, dtype="<i8"), time.time() + 0.1 * np.arange(rows)]
        columns += [np.full(rows, values.get(name, 0), _DTYPES[dtype]) for name, dtype in SCALARS.items()]
        header = {"table": self._table, "rows": rows, "without": ["absent"]}
        return self._frame(Kind.STEPS, header, [column.tobytes() for column in (*columns, norms)])

    def all_steps(self, steps: int, pool: Norms, rows: int | None = None) -> Iterator[bytes]:
        """Frames of the steps from 0 on, ``rows`` in each; ``pool`` is gone through again and again."""
        most = rows or frame_rows(self._layers)
        first = 0
        while first < steps:
            at = first % len(pool)
            some = pool[at : at + min(most, steps - first)]
            yield self.steps(first, some)
            first += len(some)

    def finish(self, last_step: int) -> bytes:
        said = {"state": "finished", "reason": "", "last_step": last_step, "time": time.time()}
        return self._frame(Kind.FINISH, said)

    def _frame(self, kind: Kind, header: Mapping[str, Any], columns: list[bytes] | None = None) -> bytes:
        data = frames.encode(kind, {"writer": self.writer, "seq": self.seq, **header}, columns or [])
        self.seq += 1
        return data
