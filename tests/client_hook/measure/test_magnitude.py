"""Histograms of magnitudes against NumPy's own histogram and frexp."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gradwatch.measure import magnitude
from gradwatch.measure.magnitude import MOST_ELEMENTS, WIDTH, elements, magnitudes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed.tensor import Partial, Shard

from tests.client_hook.measure.sharding import sharded, two_ranks

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
EDGES = np.array([0.0, *(2.0**power for power in range(-48, 17)), np.inf])


def by_numpy(values: npt.NDArray[Any]) -> list[int]:
    with np.errstate(invalid="ignore"):  # NumPy warns of a signalling NaN
        size = np.abs(values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)).reshape(-1)
    finite = size[np.isfinite(size) & (size > 0)]
    counts, _ = np.histogram(finite, EDGES)
    return [int((size == 0).sum()), int((~np.isfinite(size)).sum()), *counts.tolist()]


def one(gradient: Tensor) -> list[int]:
    row: list[int] = magnitudes([gradient])[0].tolist()
    return row


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_any_bits_are_counted_as_numpy_does(bits: list[int]) -> None:
    values = np.array(bits, np.uint32).view(np.float32)
    assert one(torch.from_numpy(values)) == by_numpy(values)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats() | st.floats(-1e-13, 1e-13) | st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_doubles_are_counted_beyond_the_range_of_floats(numbers: list[float]) -> None:
    values = np.array(numbers)
    assert one(torch.from_numpy(values)) == by_numpy(values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_power_of_two_begins_a_bin(dtype: torch.dtype) -> None:
    powers = torch.tensor([2.0**power for power in range(-60, 30)], dtype=torch.float64).to(dtype)
    below = torch.nextafter(powers.double(), torch.tensor(0.0, dtype=torch.float64)).to(dtype)
    for values in (powers, below, -powers):
        assert one(values) == by_numpy(values.double().numpy())
    # The same by frexp, whose exponent is one more than the bin's power.
    _, exponent = np.frexp(np.array([0.75]))
    assert one(torch.tensor([0.75], dtype=dtype))[2 + 48 + int(exponent[0])] == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_of_their_own_gradient_and_add_up(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    gradients = [(torch.randn(40, 5, generator=generator) * scale).to(dtype) for scale in (1e-9, 1.0, 1e5)]
    gradients[1][3, 2], gradients[1][0, 0], gradients[2][1, 1] = 0.0, float("nan"), float("-inf")
    rows = magnitudes(gradients)
    assert rows.shape == (3, WIDTH) and rows.sum(1).tolist() == [200, 200, 200]
    assert rows.tolist() == [by_numpy(gradient.double().numpy()) for gradient in gradients]


def test_the_devices_way_of_counting_gives_the_same() -> None:
    codes = magnitude.exponents(torch.randn(5000, generator=torch.Generator().manual_seed(2)))
    assert torch.equal(magnitude.count_on_device(codes), magnitude.count_on_host(codes))


def test_complex_gradients_count_by_their_absolute_value() -> None:
    values = torch.randn(300, dtype=torch.complex64, generator=torch.Generator().manual_seed(2))
    assert one(values) == by_numpy(values.numpy())


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_of_sparse_gradients_the_stored_values_count_added_up() -> None:
    indices = torch.tensor([[1, 1, 4]])
    gradient = torch.sparse_coo_tensor(
        indices, torch.tensor([[1.0, 2.0], [3.0, -2.0], [8.0, 0.5]]), (9, 2), check_invariants=True
    )
    assert elements(gradient) == 6
    assert one(gradient) == by_numpy(np.array([4.0, 0.0, 8.0, 0.5]))
    assert elements(torch.eye(3).to_sparse_csr()) == 0


def test_of_a_sharded_gradient_the_own_part_counts() -> None:
    with two_ranks() as mesh:
        gradient = sharded(torch.ones(2, 3), mesh, Shard(0))
        assert elements(gradient) == 6 and sum(one(gradient)) == 6
        assert elements(sharded(torch.ones(2, 3), mesh, Partial())) == 0


@pytest.mark.parametrize("shape", [(1024, 1024), (300_000,), (7, 3, 65_536), (1, 200_000), (200_000, 1)])
def test_a_large_gradient_is_counted_in_part_and_every_column_has_its_turn(shape: tuple[int, ...]) -> None:
    gradient = torch.zeros(shape)
    assert elements(gradient) == MOST_ELEMENTS
    counted = sum(one(gradient))
    assert MOST_ELEMENTS * 0.5 < counted <= MOST_ELEMENTS
    if len(shape) > 1:
        columns = torch.arange(shape[-1]).expand(shape).double().contiguous()
        seen = len(set(magnitude.subsample(columns).tolist()))
        assert seen >= min(shape[-1], MOST_ELEMENTS) * 0.5


@pytest.mark.parametrize("layout", ["transposed", "channels last", "a column", "expanded"])
def test_no_layout_changes_the_counts(layout: str) -> None:
    values = torch.randn(8, 6, 5, 4, generator=torch.Generator().manual_seed(2))
    laid_out = {
        "transposed": values.transpose(0, 2),
        "channels last": values.contiguous(memory_format=torch.channels_last),
        "a column": values[:, 2],
        "expanded": values[:1].expand(8, 6, 5, 4),
    }[layout]
    assert one(laid_out) == by_numpy(laid_out.numpy())


def test_a_transposed_gradient_is_not_copied() -> None:
    values = torch.randn(600, 500)
    assert magnitude.subsample(values.t()).data_ptr() == values.data_ptr()


def test_the_gradient_is_only_read_and_may_be_a_scalar() -> None:
    gradient = torch.tensor(-0.75)
    version = gradient._version
    assert one(gradient) == by_numpy(np.array([-0.75]))
    assert gradient._version == version and gradient.item() == -0.75
