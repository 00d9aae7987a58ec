"""A server with a run for those who read runs back, and what they must find."""

from __future__ import annotations

import numpy as np

from tests.server.stream import MISSING, Socket, Writer

LAYERS = ["encoder.weight", "encoder.bias", "step"]
ODD = np.array([1.0, np.nan, np.inf, -np.inf, -0.0, 5e-324, MISSING, 0.1])
NORMS = np.array([[1, 2, 3], [np.nan, np.inf, -0.0], [1e-45, 0.1, 3e38], [4, 5, 6]], np.float32)
ABSENT = np.array([[0, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]], bool)


def send_small_run(url: str, **hello: object) -> Writer:
    """A run of 8 steps of odd losses; the norms of its first four stand above."""
    writer = Writer(LAYERS, **{"run": "small", "name": "small", "config": {"lr": 0.1}, **hello})
    with Socket(url, "/api/ingest") as socket:
        socket.store(writer, writer.opening())
        socket.store(writer, writer.steps(np.arange(4), NORMS, ABSENT, loss=ODD[:4]))
        socket.store(writer, writer.steps(np.arange(4, 8), loss=ODD[4:]))
        socket.store(writer, writer.scalars([("accuracy", 3, 0.5), ("accuracy", 20, np.inf)]))
        socket.store(writer, writer.event("checkpoint", "step 5", 5))
    return writer


def send_long_run(url: str, steps: int, layers: int, **hello: object) -> Writer:
    """A run that takes several pages: loss is the step, the norm of layer i is step + i / 1000."""
    writer = Writer([f"layer.{n}" for n in range(layers)], **{"run": "long", "name": "long", **hello})
    with Socket(url, "/api/ingest") as socket:
        socket.store(writer, writer.opening())
        rows = max(1, 600_000 // (4 * layers + 100))
        for first in range(0, steps, rows):
            some = np.arange(first, min(steps, first + rows))
            socket.store(writer, writer.steps(some, long_norms(some, layers), loss=some))
    return writer


def long_norms(steps: np.ndarray, layers: int) -> np.ndarray:
    """What the long run's layers have at ``steps``."""
    return (steps[:, None] + np.arange(layers) / 1000).astype(np.float32)
