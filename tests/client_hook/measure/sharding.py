"""Sharded tensors of two ranks in one process: what rank 0 sees, with no other rank to talk to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Placement
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def two_ranks() -> Iterator[DeviceMesh]:
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (2,))
    finally:
        dist.destroy_process_group()


def sharded(local: Tensor, mesh: DeviceMesh, placement: Placement) -> DTensor:
    return DTensor.from_local(local, mesh, [placement], run_check=False)
