"""Clips on two gloo processes beside the same model whole: ``sharded_clip.py FOLDER``, which holds ``cases.json``.

A case is [scenario, strategy]. Scenarios: ``sharded`` (FSDP2 throughout), ``mixed`` (FSDP2 on the first part only),
``ddp``, ``nan`` (FSDP2, a NaN in the second rank's shard alone, skipped), ``streams`` (DDP, every rank streams).
"""

from __future__ import annotations

import copy
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import gradwatch
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel


def strategy(text: str) -> Any:
    return eval(text, {"g": gradwatch})


def spread(model: nn.Sequential, scenario: str, mesh: DeviceMesh) -> nn.Module:
    if scenario in ("ddp", "streams"):
        return DistributedDataParallel(model)
    fully_shard(model[0] if scenario == "mixed" else model, mesh=mesh)
    return model


def whole(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    full = getattr(tensor, "full_tensor", None)
    return full() if full is not None else tensor


def poison(model: nn.Module, rank: int) -> None:
    gradient: Any = next(iter(model.parameters())).grad
    if rank == 1:
        gradient.to_local().view(-1)[0] = math.nan


def clip(rank: int, scenario: str, text: str, mesh: DeviceMesh) -> dict[str, Any]:
    os.environ["GRADWATCH_MODE"] = "offline" if scenario == "streams" else "disabled"
    os.environ["GRADWATCH_RANKS"] = "all" if scenario == "streams" else "first"
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    other = spread(copy.deepcopy(plain), scenario, mesh)
    inputs = torch.randn(4, 8)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    nonfinite: Any = "skip" if scenario == "nan" else "record"
    monitors = [
        gradwatch.watch(other, optimizer, clip=strategy(text), nonfinite=nonfinite),
        gradwatch.watch(plain, clip=strategy(text), mode="disabled"),
    ]
    differences, totals = [], []
    for step in range(3):
        for model in (plain, other):
            model.zero_grad()
            (model(inputs) * (step + 1)).square().sum().backward()
        if scenario == "nan":
            poison(other, rank)
        totals.append([monitor.clip().item() for monitor in monitors])
        pairs = list(zip(other.parameters(), plain.parameters(), strict=True))
        differences += [float((whole(a.grad) - whole(b.grad)).abs().max()) for a, b in pairs if a.grad is not None]
    monitors[0].finish()
    return {"totals": totals, "differences": differences, "threshold": monitors[0].threshold}


def run(rank: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", GRADWATCH_DIR=folder)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    cases = json.loads(Path(folder, "cases.json").read_text())
    said = [clip(rank, scenario, text, mesh) for scenario, text in cases]
    Path(folder, f"rank{rank}.json").write_text(json.dumps(said))
    dist.barrier()
    # gloo's threads abort the process now and then while the group is taken down; what is tested is done by now.
    os._exit(0)


if __name__ == "__main__":
    multiprocessing.spawn(run, args=(sys.argv[1],), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
