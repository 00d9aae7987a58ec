"""The values of a training's steps logged by a peer as fast as it takes them, in this process; see benchmarks.ingest.

``python -m benchmarks.peers.ingesting PEER FOLDER --layers N --steps N --out FILE`` writes what it measured into FILE
as JSON. It needs NumPy and the peer's own library (of TensorBoard also torch, whose writer it is).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import cpu_time
from benchmarks.stream import walking_norms

PEERS: Final = {"tensorboard": "TensorBoard", "wandb": "W&B offline", "trackio": "Trackio"}
Log = Callable[[int, dict[str, float]], None]


def open_log(peer: str, folder: Path) -> tuple[Log, Callable[[], None]]:
    """How ``peer`` logs a step, and how it ends."""
    made = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
    return made[peer](folder)


def _tensorboard(folder: Path) -> tuple[Log, Callable[[], None]]:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder))

    def log(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return log, writer.close


def _wandb(folder: Path) -> tuple[Log, Callable[[], None]]:
    import wandb

    quiet = wandb.Settings(
        x_disable_stats=True, x_disable_meta=True, disable_git=True, disable_code=True, console="off"
    )
    run = wandb.init(project="peers", dir=str(folder), mode="offline", settings=quiet)
    return lambda step, values: run.log(values), run.finish


def _trackio(folder: Path) -> tuple[Log, Callable[[], None]]:
    import trackio

    trackio.init(project="peers", embed=False, auto_log_cpu=False, auto_log_gpu=False)
    return lambda step, values: trackio.log(values, step=step), trackio.finish


def measure(peer: str, folder: Path, layers: int, steps: int) -> dict[str, Any]:
    """Log ``steps`` steps and end."""
    rows = walking_norms(steps, layers, 0).tolist()
    names = [f"grad_norm/blocks.{n // 12}.part{n % 12}.weight" for n in range(layers)]
    ready = [dict(zip(names, row, strict=True)) for row in rows]
    log, finish = open_log(peer, folder)
    own, beside, begun = cpu_time.own(), cpu_time.beside(()), time.monotonic()
    for step, values in enumerate(ready):
        log(step, values)
    finish()
    seconds = time.monotonic() - begun
    used = {"cpu": cpu_time.own() - own, "beside": cpu_time.beside(()) - beside}
    return {"seconds": seconds, "version": version(peer), **used}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.write_text(json.dumps(measure(given.peer, given.folder, given.layers, given.steps)))


if __name__ == "__main__":
    main()
