"""Tensors laid end to end."""

from __future__ import annotations

import torch
from gradwatch.probe.pieces import by_device, pieces
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=6), st.integers(1, 40))
def test_they_are_all_elements_in_order(shapes: list[list[int]], size: int) -> None:
    tensors = [torch.randn(shape) for shape in shapes]
    found = list(pieces(tensors, size))
    whole = torch.cat([torch.zeros(0), *(tensor.reshape(-1) for tensor in tensors)])
    assert torch.equal(torch.cat([torch.zeros(0), *found]), whole)
    assert all(len(piece) == size for piece in found[:-1]) and all(0 < len(piece) <= size for piece in found[-1:])


def test_what_lies_within_one_tensor_is_a_view() -> None:
    tensor = torch.nn.Parameter(torch.randn(4, 5))
    found = list(pieces([tensor], 8))
    assert [piece.data_ptr() - tensor.data_ptr() for piece in found] == [0, 32, 64]
    assert not any(piece.requires_grad for piece in found)


def test_other_layouts_are_taken_by_their_indices() -> None:
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert torch.equal(torch.cat(list(pieces([tensor], 7))), tensor.contiguous().flatten())


def test_dtypes_are_joined_in_their_common_one() -> None:
    tensors = [torch.ones(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.float32), torch.ones(3)]
    assert [piece.dtype for piece in pieces(tensors, 2)] == [torch.bfloat16] + [torch.float32] * 4


def test_devices_are_kept_apart() -> None:
    tensors = [torch.ones(1), torch.ones(1, device="meta"), torch.ones(1)]
    assert by_device(tensors) == [[0, 2], [1]] and by_device([]) == []
