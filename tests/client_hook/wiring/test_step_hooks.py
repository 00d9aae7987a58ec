"""Observers hear of every step, and torch's hooks are there only as long as somebody listens."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from gradwatch.wiring import step_hooks
from torch import nn
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook


class Listener:
    """Keeps what it hears; does ``then`` at each step's begin."""

    def __init__(self, then: Callable[[], Any] = lambda: None) -> None:
        self.heard: list[tuple[str, int, bool]] = []
        self.then = then

    def step_begins(self, optimizer: Optimizer, has_closure: bool) -> None:
        self.heard.append(("begins", id(optimizer), has_closure))
        self.then()

    def step_ends(self, optimizer: Optimizer, has_closure: bool) -> None:
        self.heard.append(("ends", id(optimizer), has_closure))


def hooks() -> int:
    return len(torch_optimizer._global_optimizer_pre_hooks) + len(torch_optimizer._global_optimizer_post_hooks)


@pytest.fixture
def optimizer() -> Iterator[Optimizer]:
    model = nn.Linear(2, 2)
    model(torch.ones(1, 2)).sum().backward()
    yield torch.optim.SGD(model.parameters(), lr=0.1)
    gc.collect()
    step_hooks.leave(Listener())
    assert hooks() == 0


def test_steps_are_heard_until_the_last_observer_leaves(optimizer: Optimizer) -> None:
    first, second = Listener(), Listener()
    step_hooks.observe(first)
    step_hooks.observe(first)
    step_hooks.observe(second)
    assert hooks() == 2
    optimizer.step()
    step_hooks.leave(first)
    assert hooks() == 2
    optimizer.step()
    step_hooks.leave(second)
    assert hooks() == 0
    optimizer.step()
    here = id(optimizer)
    assert first.heard == [("begins", here, False), ("ends", here, False)] and second.heard == 2 * first.heard


@pytest.mark.parametrize("how", ["by position", "by name"])
def test_a_closure_is_heard_of(how: str, optimizer: Optimizer) -> None:
    listener = Listener()
    step_hooks.observe(listener)
    if how == "by position":
        optimizer.step(lambda: 0.0)
    else:
        optimizer.step(closure=lambda: 0.0)
    optimizer.step(None)
    assert [closure for _, _, closure in listener.heard] == [True, True, False, False]


def test_observers_are_not_kept_alive(optimizer: Optimizer) -> None:
    step_hooks.observe(Listener())
    gc.collect()
    optimizer.step()
    assert not step_hooks._observing


def test_leaving_within_a_step_leaves_the_hooks_to_later(optimizer: Optimizer) -> None:
    listener = Listener()
    listener.then = lambda: step_hooks.leave(listener)
    step_hooks.observe(listener)
    optimizer.step()
    assert hooks() == 2 and len(listener.heard) == 1
    optimizer.step()
    assert len(listener.heard) == 1
    step_hooks.leave(listener)
    assert hooks() == 0


@pytest.mark.parametrize("what", ["observe", "leave"])
def test_hooks_of_others_are_never_disturbed(what: str, optimizer: Optimizer) -> None:
    """torch raises when its hooks change while it goes through them."""
    listener = Listener()
    act = getattr(step_hooks, what)
    others = [register_optimizer_step_pre_hook(lambda *arguments: act(listener)) for _ in range(2)]
    if what == "leave":
        step_hooks.observe(listener)
    others += [register_optimizer_step_pre_hook(lambda *arguments: act(listener)) for _ in range(2)]
    try:
        optimizer.step()
        act(listener)  # outside any step it is done
        assert bool(step_hooks._handles) == (what == "observe")
    finally:
        for other in others:
            other.remove()
        step_hooks.leave(listener)


def test_within_a_closure_hooks_come_and_go(optimizer: Optimizer) -> None:
    listener = Listener()

    def closure(act: Callable[[Listener], None]) -> Callable[[], float]:
        def acts() -> float:
            act(listener)
            return 0.0

        return acts

    optimizer.step(closure(step_hooks.observe))
    assert hooks() == 2 and [what for what, _, _ in listener.heard] == ["ends"]
    optimizer.step(closure(step_hooks.leave))
    assert hooks() == 0


def test_optimizers_are_copied_as_before(optimizer: Optimizer) -> None:
    listener = Listener()
    step_hooks.observe(listener)
    copied = copy.deepcopy(optimizer)
    copied.step()
    assert listener.heard[0][1] == id(copied)
    step_hooks.leave(listener)
