"""Weight norms against NumPy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gradwatch.measure.weight_norm import elements, weight_norms
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed.tensor import Replicate, Shard

from tests.client_hook.measure.sharding import sharded, two_ranks

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
shapes = st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=5)


def weights_of(shapes: list[list[int]], dtypes: list[torch.dtype], scale: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    real = [torch.randn(shape, generator=generator) * scale for shape in shapes]
    return [weight.to(dtypes[place % len(dtypes)]).requires_grad_() for place, weight in enumerate(real)]


def norms_by_numpy(weights: list[Tensor]) -> list[float]:
    wide = [weight.detach().to(torch.complex128).numpy() for weight in weights]
    return [float(np.sqrt((np.abs(weight) ** 2).sum())) for weight in wide]


@settings(deadline=None, max_examples=60)
@given(shapes, st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3), st.floats(1e-3, 1e3))
def test_norms_are_numpys(shapes: list[list[int]], dtypes: list[torch.dtype], scale: float) -> None:
    weights = weights_of(shapes, dtypes, scale)
    with torch.no_grad():
        norms = weight_norms(weights)
    assert norms.dtype is torch.float32
    assert norms.tolist() == pytest.approx(norms_by_numpy(weights), rel=1e-5)


def test_half_precision_does_not_overflow() -> None:
    weights = [torch.full((65536,), 300.0, dtype=torch.float16)]
    assert weight_norms(weights).tolist() == [pytest.approx(76800.0, rel=1e-4)]


def test_a_poisoned_weight_is_told() -> None:
    norms = weight_norms([torch.tensor([1.0, float("nan")]), torch.tensor([float("inf")]), torch.tensor([3.0, 4.0])])
    assert str(norms.tolist()) == "[nan, inf, 5.0]"


def test_what_one_rank_cannot_know_is_left_out() -> None:
    with two_ranks() as mesh:
        assert elements(sharded(torch.ones(2, 3), mesh, Shard(0))) == 0
        whole = sharded(torch.ones(2, 2), mesh, Replicate())
        assert elements(whole) == 4 and weight_norms([whole]).tolist() == [2.0]
    assert elements(torch.ones(2, 3).to_sparse()) == 0
