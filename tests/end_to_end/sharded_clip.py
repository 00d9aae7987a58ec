"""One clip of a model sharded over two processes by FSDP2, beside the same model whole: ``sharded_clip.py FOLDER``."""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path

import gradwatch
import torch
import torch.distributed as dist
from torch import multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def clip(rank: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", GRADWATCH_MODE="disabled")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    sharded = copy.deepcopy(whole)
    fully_shard(sharded, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.SGD(sharded.parameters(), lr=0.1)
    inputs = torch.randn(4, 8)
    for model in (whole, sharded):
        model(inputs).square().sum().backward()
    total = gradwatch.watch(sharded, optimizer, clip=0.5).clip()
    expected = torch.nn.utils.clip_grad_norm_(whole.parameters(), 0.5)
    pairs = zip(sharded.parameters(), whole.parameters(), strict=True)
    differences = [float((a.grad.full_tensor() - b.grad).abs().max()) for a, b in pairs]  # type: ignore[union-attr]
    said = {"total": total.item(), "expected": expected.item(), "largest difference": max(differences)}
    Path(folder, f"rank{rank}.json").write_text(json.dumps(said))
    dist.barrier()
    # gloo's threads abort the process now and then while the group is taken down; what is tested is done by now.
    os._exit(0)


if __name__ == "__main__":
    multiprocessing.spawn(clip, args=(sys.argv[1],), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
