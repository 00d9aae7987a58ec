from __future__ import annotations

import numpy as np
import pytest
from gradwatch_server.store.codec import Relative, decode, encode
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

RELATIVE: list[Relative] = ["plain", "centred", "successive"]


@given(
    st.sampled_from(["u1", "<u4", "<i8", "<f4", "<f8"]),
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=70),
    st.sampled_from(RELATIVE),
    st.integers(0, 2**32),
)
def test_every_bit_pattern_comes_back(dtype: str, shape: tuple[int, int], relative: Relative, seed: int) -> None:
    size = np.dtype(dtype).itemsize
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, size), np.uint8)
    values = raw.view(dtype)[..., 0]  # every pattern: NaN of any payload, infinities, subnormals
    found = decode(encode(values, relative))
    assert found.dtype == values.dtype and found.shape == values.shape
    assert found.tobytes() == np.ascontiguousarray(values).tobytes()


def test_transposed_tables_and_views_of_bytes_are_taken_as_they_are() -> None:
    values = np.arange(12, dtype="<f4").reshape(3, 4).T
    np.testing.assert_array_equal(decode(memoryview(b"..." + encode(values, "centred"))[3:]), values)


@pytest.mark.parametrize("relative", RELATIVE)
def test_what_is_decoded_may_be_written_to(relative: Relative) -> None:
    found = decode(encode(np.ones((2, 3), np.float32), relative))
    found += 1
    assert (found == 2).all()


def test_norms_like_noise_around_a_level_shrink_to_their_noise() -> None:
    chance = np.random.default_rng(5)
    norms = np.exp(chance.normal(size=(64, 1)) + 0.1 * chance.normal(size=(64, 256))).astype("<f4")
    sizes = {relative: len(encode(norms, relative)) / norms.size for relative in RELATIVE}
    # 23 bits of mantissa, and of the noise of 10 percent what its own spread leaves: log2(0.1 / ln 2 * sqrt(2 pi e)).
    entropy = (23 + np.log2(0.1 / np.log(2) * np.sqrt(2 * np.pi * np.e))) / 8
    assert entropy < sizes["centred"] < 1.08 * entropy
    assert sizes["centred"] < sizes["plain"] < 4
