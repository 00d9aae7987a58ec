"""Ranks that train by DDP until somebody asks them to stop: ``torchrun commanded_ranks.py FOLDER all|first``.

"first": only the first rank watches, the others clip by torch, and all end once there is a file FOLDER/enough.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import gradwatch
import torch
import torch.distributed as dist
from gradwatch.monitor import Monitor
from torch import nn
from torch.nn.parallel import DistributedDataParallel

THRESHOLD = 1e-3
SECONDS = 60  # after which it ends in any case


def digest(model: nn.Module) -> str:
    parts = [parameter.detach().numpy().tobytes() for parameter in model.parameters()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def train(rank: int, folder: Path, watching: str) -> dict[str, Any]:
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    saved: list[tuple[int, str]] = []

    def save(monitor: Monitor) -> None:
        dist.barrier()  # as those that gather a sharded model do: a rank that came at another step would hang all
        saved.append((monitor.step, digest(model)))

    monitor = None
    if watching == "all" or rank == 0:
        monitor = gradwatch.watch(model, optimizer, clip=THRESHOLD, control=True, on_checkpoint=save, name="ranks")
    generator = torch.Generator().manual_seed(rank)
    thresholds: list[float] = []
    weights: list[str] = []
    slowest, until = 0.0, time.monotonic() + SECONDS
    enough = torch.zeros(())
    while not enough:
        inputs = torch.randn(4, 8, generator=generator)
        optimizer.zero_grad()
        (model(inputs) - inputs).square().mean().backward()
        begun = time.perf_counter()
        if monitor is None:
            nn.utils.clip_grad_norm_(model.parameters(), THRESHOLD)
        else:
            monitor.clip()
            thresholds.append(monitor.threshold)
        slowest = max(slowest, time.perf_counter() - begun)
        optimizer.step()
        weights.append(digest(model))
        if monitor is not None and monitor.should_stop:
            break
        enough.fill_(time.monotonic() > until or (folder / "enough").exists())
        dist.all_reduce(enough, dist.ReduceOp.MAX)
        time.sleep(0.002)
    if monitor is not None:
        monitor.finish()
    changes = [step for step in range(1, len(thresholds)) if thresholds[step] != thresholds[step - 1]]
    said = {"changes": changes, "thresholds": [thresholds[step] for step in changes], "saved": saved}
    stopped = monitor is not None and monitor.should_stop
    return {**said, "weights": weights, "steps": len(weights), "slowest": slowest, "stopped": stopped}


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    here, folder = dist.get_rank(), Path(sys.argv[1])
    said = train(here, folder, sys.argv[2])
    (folder / f"rank{here}.json").write_text(json.dumps(said))
    dist.barrier()
    os._exit(0)  # gloo may abort while its group is taken down, after everything is said
