"""Two gloo processes that train by DDP, bare and probed, and one sharded model: ``probed_ranks.py FOLDER``."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import gradwatch
import torch
import torch.distributed as dist
from gradwatch import watching
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

STEPS = 60


def probe(model: nn.Module) -> Tensor:
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(5))
    loss: Tensor = (model(inputs) - inputs).square().mean()
    return loss


def train(rank: int, *, probed: bool, sharded: bool = False) -> tuple[str, Any]:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 6))
    model: nn.Module = plain
    if sharded:
        fully_shard(plain, mesh=init_device_mesh("cpu", (2,)))
    else:
        model = DistributedDataParallel(plain)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    monitor = gradwatch.watch(model, optimizer, clip=0.5, probe=probe if probed else None, probe_budget=0.9)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(STEPS):
        inputs = torch.randn(8, 6, generator=generator)
        loss = (model(inputs) - inputs).square().mean()
        optimizer.zero_grad()
        loss.backward()
        monitor.clip(loss)
        optimizer.step()
    assert monitor._writer is not None
    prober = monitor._writer._prober
    monitor.finish()
    if sharded:
        return "", prober
    digest = hashlib.sha256()
    for tensor in plain.state_dict().values():
        shared = tensor.double().clone()
        dist.all_reduce(shared)  # running statistics belong to each rank: together they are one number for both
        digest.update(shared.numpy().tobytes())
    dropped = [torch.get_rng_state().double()]
    dist.all_reduce(dropped[0])
    digest.update(dropped[0].numpy().tobytes())
    return digest.hexdigest(), prober


def work(rank: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "GRADWATCH_DIR": f"{folder}/{rank}"}
    os.environ["GRADWATCH_MODE"] = "offline"
    torch.set_num_threads(1)
    watching._share = lambda name, share: 50.0  # a probe at every step, however busy the machine
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    bare, _ = train(rank, probed=False)
    probed, prober = train(rank, probed=True)
    _, refused = train(rank, probed=True, sharded=True)
    said = {"bare": bare, "probed": probed, "points": None if prober is None else prober.points}
    said["sharded"] = None if refused is None else refused.is_active
    Path(folder, f"rank{rank}.json").write_text(json.dumps(said))
    dist.barrier()
    os._exit(0)  # gloo may abort while its group is taken down, after everything is said


if __name__ == "__main__":
    torch.multiprocessing.spawn(work, args=(sys.argv[1],), nprocs=2)  # type: ignore[attr-defined,no-untyped-call]
