"""What one rank knows of a tensor."""

from __future__ import annotations

import pytest
import torch
from gradwatch.measure.local_part import every, is_whole, local_part
from torch.distributed.tensor import Partial, Replicate, Shard

from tests.client_hook.measure.sharding import sharded, two_ranks


def test_an_ordinary_tensor_is_its_own_part() -> None:
    tensor = torch.ones(2, 3)
    assert local_part(tensor) is tensor and is_whole(tensor)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 50])
def test_every_third_is_what_slicing_gives(step: int) -> None:
    tensor = torch.arange(7 * 8).reshape(7, 8)
    assert torch.equal(every(step, tensor, 0), tensor[::step])
    assert torch.equal(every(step, tensor.t(), 0), tensor.t()[::step])
    assert torch.equal(every(step, tensor, 1), tensor[:, ::step])
    assert every(step, tensor, 1).data_ptr() == tensor.data_ptr()


def test_a_sharded_tensor_is_known_in_part_and_a_partial_sum_not_at_all() -> None:
    local = torch.arange(6.0).reshape(2, 3)
    with two_ranks() as mesh:
        shard, whole = sharded(local, mesh, Shard(0)), sharded(local, mesh, Replicate())
        part = local_part(shard)
        assert part is not None and torch.equal(part, local) and part.data_ptr() == local.data_ptr()
        assert not is_whole(shard) and shard.shape == (4, 3)
        part = local_part(whole)
        assert part is not None and torch.equal(part, local) and is_whole(whole)
        assert local_part(sharded(local, mesh, Partial())) is None
