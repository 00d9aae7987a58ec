"""The drop-ins against torch's functions: same signature, same results, quirks included."""

from __future__ import annotations

import inspect
import math
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import gradwatch
import pytest
import torch
from gradwatch import registry
from torch import Tensor, nn

from tests.client_hook.conftest import KeepingSink, monitor_of


def pair(*values: list[float]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    both = []
    for _ in range(2):
        parameters = [nn.Parameter(torch.zeros(len(value))) for value in values]
        for parameter, value in zip(parameters, values, strict=True):
            parameter.grad = torch.tensor(value)
        both.append(parameters)
    return both[0], both[1]


def same(one: list[nn.Parameter], other: list[nn.Parameter]) -> bool:
    return all(
        a.grad is not None and b.grad is not None and torch.equal(a.grad.nan_to_num(9e9), b.grad.nan_to_num(9e9))
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("name", ["clip_grad_norm_", "clip_grad_value_"])
def test_signatures_are_torchs(name: str) -> None:
    ours = inspect.signature(getattr(gradwatch, name)).parameters
    theirs = inspect.signature(getattr(torch.nn.utils, name)).parameters
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]


@pytest.mark.parametrize(
    "arguments", [(1.0,), (100.0,), (1.0, 1.0), (1.0, math.inf), (-1.0,), (0.0,), (1.0, 0.5), (math.nan,)]
)
@pytest.mark.parametrize("values", [([3.0, 4.0], [12.0]), ([math.nan, 1.0], [1.0]), ([math.inf], [2.0])])
def test_norm_results_are_torchs(arguments: Any, values: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWATCH_MODE", "disabled")
    ours, theirs = pair(*values)
    total = torch.nn.utils.clip_grad_norm_(theirs, *arguments)
    returned = gradwatch.clip_grad_norm_(iter(ours), *arguments)
    assert torch.equal(returned.nan_to_num(9e9), total.nan_to_num(9e9)) and same(ours, theirs)


def test_an_error_is_raised_in_torchs_words_and_touches_nothing() -> None:
    ours, theirs = pair([math.nan, 1.0])
    with pytest.raises(RuntimeError) as expected:
        torch.nn.utils.clip_grad_norm_(theirs, 1.0, error_if_nonfinite=True)
    with pytest.raises(RuntimeError) as raised:
        gradwatch.clip_grad_norm_(ours, 1.0, error_if_nonfinite=True)
    assert str(raised.value) == str(expected.value) and same(ours, theirs)


def test_a_parameter_given_twice_is_counted_and_clipped_twice() -> None:
    ours, theirs = pair([3.0, 4.0])
    total = torch.nn.utils.clip_grad_norm_([theirs[0], theirs[0]], 1.0)
    assert torch.equal(gradwatch.clip_grad_norm_([ours[0], ours[0]], 1.0), total) and same(ours, theirs)


def test_ever_new_tensors_open_no_runs() -> None:
    """Adversarial perturbations, meta-learning: torch's clipping, and nothing kept."""
    threads = threading.active_count()
    for _ in range(10):
        perturbation = torch.zeros(5, requires_grad=True)
        perturbation.grad = torch.full((5,), 3.0)
        gradwatch.clip_grad_norm_(perturbation, 1.0)
        assert perturbation.grad is not None and perturbation.grad.norm().item() == pytest.approx(1.0)
    assert threading.active_count() <= threads  # those of earlier runs may still be ending


def test_a_wrong_setting_in_the_environment_does_not_stop_the_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADWATCH_MODE", "onlin")
    ours, theirs = pair([3.0, 4.0])
    assert gradwatch.clip_grad_norm_(ours, 1.0) == torch.nn.utils.clip_grad_norm_(theirs, 1.0) and same(ours, theirs)


def test_nothing_to_clip_is_torchs_zero() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about an empty generator; so do we, through torch
        assert gradwatch.clip_grad_norm_([], 1.0).item() == 0.0


def test_value_results_are_torchs() -> None:
    ours, theirs = pair([3.0, -4.0, math.nan, math.inf], [0.1])
    torch.nn.utils.clip_grad_value_(theirs, 0.5)
    gradwatch.clip_grad_value_(ours, 0.5)
    assert same(ours, theirs)
    assert gradwatch.clip_grad_value_(ours[0], -1.0) is None  # type: ignore[func-returns-value]


@pytest.fixture
def watched(sink: KeepingSink) -> Iterator[tuple[nn.Module, KeepingSink]]:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    monitor = monitor_of(model, [], gradwatch.GlobalNorm(1.0), sink)
    registry.remember(model, monitor)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    yield model, sink
    monitor.finish()


def test_the_step_goes_to_the_monitor_that_owns_the_parameters(watched: tuple[nn.Module, KeepingSink]) -> None:
    model, sink = watched
    backwards: list[Tensor] = list(reversed(list(model.parameters())))
    gradwatch.clip_grad_norm_(backwards, 0.5)
    gradwatch.clip_grad_value_(model.parameters(), 0.01)
    (rows,) = sink.rows()
    assert rows.step.tolist() == [0, 1]
    # Layers keep their places whatever the order they were given in.
    assert rows.norms[0].tolist() == pytest.approx([2.0, math.sqrt(2), 2.0, math.sqrt(2)])
    assert rows.scalars[:, 3].tolist() == [0.5, 0.01]
