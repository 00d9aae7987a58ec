"""Update-to-weight ratios against NumPy in double precision."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gradwatch.measure import update_ratio
from gradwatch.measure.sample import Sample
from gradwatch.measure.sampler import Sampler
from gradwatch.measure.update_ratio import ABSENT, UpdateRatio, copied_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed.tensor import Partial, Shard

from tests.client_hook.measure.sharding import sharded, two_ranks
from tests.client_hook.measure.training import NOTHING, Clock, gathered, layers

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
shapes = st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=5)


def doubled(weight: Tensor) -> npt.NDArray[np.complex128]:
    return weight.detach().to(torch.complex128).numpy().copy()


def ratios(weights: list[Tensor], lr: float) -> tuple[list[float], list[float]]:
    """Ours and NumPy's, of one plain step along random directions."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        before = [doubled(weight) for weight in weights]
        measuring = UpdateRatio(weights)
        for weight in weights:
            weight.sub_(torch.randn(weight.shape, generator=generator).to(weight.dtype), alpha=lr)
        after = [doubled(weight) for weight in weights]
        ours = measuring.finish()
    assert ours is not None and ours.dtype is torch.float32
    both = zip(before, after, strict=True)
    return ours.tolist(), [float(np.linalg.norm(b - a) / np.linalg.norm(a)) for a, b in both]


@settings(deadline=None, max_examples=60)
@given(shapes, st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3), st.floats(1e-3, 1.0))
def test_ratios_are_numpys(shapes: list[list[int]], dtypes: list[torch.dtype], lr: float) -> None:
    generator = torch.Generator().manual_seed(3)
    weights = [
        (torch.randn(shape, generator=generator) + 2).to(dtypes[place % len(dtypes)])
        for place, shape in enumerate(shapes)
    ]
    ours, numpys = ratios(weights, lr)
    # The weights are exact in either precision, and so is their difference but for its last bit.
    assert ours == pytest.approx(numpys, rel=2e-4, abs=1e-9)


def test_an_update_lost_in_half_precision_is_no_update() -> None:
    ours, _ = ratios([torch.full((1000,), 256.0, dtype=torch.bfloat16)], 1e-3)
    assert ours == [0.0]


def test_the_weights_are_only_read() -> None:
    weight = torch.nn.Parameter(torch.ones(4))
    with torch.no_grad():
        version = weight._version
        measuring = UpdateRatio([weight])
        assert weight._version == version
        weight.mul_(2)
        ratio = measuring.finish()
    assert ratio is not None and ratio.tolist() == [1.0] and weight._version == version + 1


def test_no_step_gives_zero_and_no_weight_no_ratio() -> None:
    measuring = UpdateRatio([torch.ones(3), torch.zeros(3), torch.tensor([float("nan")])])
    ratio = measuring.finish()
    assert ratio is not None and str(ratio.tolist()) == f"[0.0, {ABSENT}, nan]"


@pytest.mark.parametrize("shape", [(1000, 8), (3, 4000), (5000,), (2, 2, 900)])
def test_a_large_layer_is_measured_over_a_slice(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_ratio, "MOST_BYTES", 4096)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)) + 3
    assert 2048 < copied_bytes(weight) <= 4096
    ours, numpys = ratios([weight], 0.1)
    assert ours == pytest.approx(numpys, rel=0.1)
    # The whole of it would give another number.
    assert ours != pytest.approx(numpys, rel=1e-6)


def test_of_a_sharded_layer_the_own_part_is_measured() -> None:
    with two_ranks() as mesh, torch.no_grad():
        weight = sharded(torch.full((2, 3), 2.0), mesh, Shard(0))
        assert copied_bytes(weight) == 24
        assert copied_bytes(sharded(torch.ones(2), mesh, Partial())) == 0
        measuring = UpdateRatio([weight])
        weight.to_local().mul_(1.5)
        ratio = measuring.finish()
    assert ratio is not None and ratio.tolist() == [0.5]


def test_a_weight_of_another_shape_by_now_gives_nothing() -> None:
    weight = torch.nn.Parameter(torch.ones(4))
    measuring = UpdateRatio([weight])
    weight.data = torch.ones(5)
    assert measuring.finish() is None


def test_where_one_step_has_two_clips_the_update_is_that_of_the_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by drop-ins that are called for one part of the model after the other."""
    clock, sent, parameters = Clock(monkeypatch), list[Sample](), layers(4)
    kept = Sampler(range(4), 0.5, sent.append)
    with torch.no_grad():
        for step in range(400):
            clock.now += 0.01
            kept.step(gathered(parameters, step, [0, 1] if step % 2 == 0 else [2, 3]), NOTHING)
            if step % 2:
                torch._foreach_mul_(parameters, 1.01)
    ratios = [ratio for sample in sent if sample.metric == "update_ratio" for ratio in sample.numpy().tolist()]
    assert ratios == pytest.approx([0.01] * len(ratios), rel=1e-3) and len(ratios) > 8


def test_an_update_is_that_of_one_step_even_if_copying_made_a_debt(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent, parameters = Clock(monkeypatch, per_copy=0.2), list[Sample](), layers(1)
    kept = Sampler([0], 0.01, sent.append)
    with torch.no_grad():
        for step in range(12_000):
            clock.now += 0.01
            kept.step(gathered(parameters, step), NOTHING)
            parameters[0].mul_(1.01 if step % 2 else 1 / 1.01)
    ratios = [sample.numpy().item() for sample in sent if sample.metric == "update_ratio"]
    assert ratios == pytest.approx([0.01] * len(ratios), rel=0.02) and len(ratios) > 2
