"""The marks of a gradient's way from backward over clip to step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gradwatch.wiring.gradient_probe import ADDED, AGAIN, BACKWARD, CLIPPED, OTHER, USELESS, GradientProbe
from torch import Tensor, nn


class Followed:
    """A parameter under a probe."""

    def __init__(self, size: int = 4) -> None:
        self.parameter = nn.Parameter(torch.ones(size))
        self.probe = GradientProbe(self.parameter)
        self.probe.begin_anew()

    def backward(self) -> None:
        (self.parameter * 3).sum().backward()  # type: ignore[no-untyped-call]

    def clip(self, by: float = 0.5) -> None:
        assert self.parameter.grad is not None
        self.probe.note(CLIPPED)
        self.parameter.grad.mul_(by)
        self.probe.clip_ended()


def test_backwards_are_marked_once_until_something_else_happens() -> None:
    followed = Followed()
    for _ in range(1000):
        followed.backward()
    assert followed.probe.marks == BACKWARD and followed.probe.state() == "fresh"


def test_a_backward_onto_what_a_clip_left_is_told_from_one_onto_nothing() -> None:
    def none(parameter: Tensor) -> None:
        parameter.grad = None

    def zeroed(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.zero_()

    def other(parameter: Tensor) -> None:
        parameter.grad = torch.ones_like(parameter)

    cases: list[tuple[Callable[[Tensor], None], str]] = [
        (lambda parameter: None, ADDED), (none, BACKWARD), (zeroed, BACKWARD), (other, BACKWARD)
    ]  # fmt: skip
    for between, mark in cases:
        followed = Followed()
        followed.backward()
        followed.clip()
        between(followed.parameter)
        followed.backward()
        assert followed.probe.marks == BACKWARD + CLIPPED + mark


def test_what_a_clip_finds_is_named() -> None:
    followed = Followed()
    fresh = GradientProbe(followed.parameter)
    assert (fresh.state(), followed.probe.state()) == ("new", "stale")
    followed.backward()
    assert (fresh.state(), followed.probe.state()) == ("fresh", "fresh")
    followed.clip()
    assert followed.probe.state() == "same"
    followed.parameter.grad = followed.parameter.grad.clone()  # type: ignore[union-attr]
    assert followed.probe.state() == "changed"
    followed.probe.begin_anew()
    assert followed.probe.state() == "stale" and followed.probe.marks == ""
    followed.backward()
    followed.parameter.grad = None
    assert followed.probe.state() == "gone" and followed.probe.is_gone()


@pytest.mark.parametrize("by", [0.0, 0.5])
def test_zeroing_in_place_is_told_from_other_changes(by: float) -> None:
    followed = Followed()
    followed.backward()
    assert followed.probe.is_untouched()
    assert followed.parameter.grad is not None
    followed.parameter.grad.mul_(by)
    assert followed.probe.state() == ("gone" if by == 0 else "fresh") and not followed.probe.is_untouched()


def test_a_gradient_that_is_zero_by_itself_was_not_zeroed() -> None:
    followed = Followed()
    (followed.parameter * 0).sum().backward()  # type: ignore[no-untyped-call]
    assert followed.probe.state() == "fresh"


def test_large_gradients_are_not_held_beyond_the_clip() -> None:
    small, large = Followed(4), Followed(1 << 19)
    for followed in (small, large):
        followed.backward()
        followed.clip()
    assert small.probe._left is small.parameter.grad and large.probe._left is None
    small.probe.begin_anew()
    assert small.probe._left is None


def test_marks_stay_short() -> None:
    followed = Followed()
    for _ in range(100):
        for mark in (CLIPPED, AGAIN, OTHER, USELESS, USELESS):
            followed.probe.note(mark)
    assert len(followed.probe.marks) == 64 and USELESS * 2 not in followed.probe.marks


def test_a_closed_or_forgotten_probe_marks_nothing() -> None:
    followed = Followed()
    followed.probe.close()
    followed.backward()
    assert followed.probe.marks == "" and not followed.parameter._post_accumulate_grad_hooks
    del followed.probe
    Followed.backward(followed)


def test_tensors_without_an_accumulation_are_refused() -> None:
    for tensor in (torch.ones(2), torch.ones(2, requires_grad=True) * 2):
        with pytest.raises(RuntimeError):
            GradientProbe(tensor)


def test_sparse_gradients_are_followed() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    probe = GradientProbe(table.weight)
    table(torch.tensor([1, 2])).sum().backward()
    assert probe.state() == "fresh" and not probe.is_gone()
    probe.note(CLIPPED)
    probe.clip_ended()
    table(torch.tensor([3])).sum().backward()
    assert probe.marks[:2] == BACKWARD + CLIPPED and probe.marks[2:] in (BACKWARD, ADDED)
