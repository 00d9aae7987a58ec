"""What every adaptive strategy is put through, on single gradients of prescribed norms."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gradwatch.clipping import adaptive, layered, window
from gradwatch.clipping.adaptive import Adaptive
from gradwatch.clipping.strategy import Decision
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.client_hook.clipping.stepping import clip, gradients_of

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

NASTY = [math.nan, math.inf, 0.0, 1e30, 1e-30, 5e-324, 1e200, 1.0]
plain_norms = st.floats(1e-3, 1e3)
nasty_norms = st.lists(plain_norms | st.sampled_from(NASTY), min_size=1, max_size=60)
constant_norms = st.builds(
    lambda norm, count: [norm] * count, st.sampled_from([0.1, 1.0, 1e30, 1e-30]), st.integers(1, 60)
)
layer_rows = st.lists(
    st.lists(plain_norms | st.sampled_from([n for n in NASTY if n != 1e200]), min_size=3, max_size=3),
    min_size=1,
    max_size=25,
)
sequences = nasty_norms | constant_norms


def enter(norm: float) -> bool:
    return 0 < norm < math.inf


def steps(strategy: Adaptive, norms: Sequence[float], first: int = 0) -> list[Decision]:
    """One step for each norm, on one float64 gradient of one element."""
    return [clip(strategy, [torch.tensor([norm], dtype=torch.float64)], first + at)[1] for at, norm in enumerate(norms)]


def layer_steps(strategy: Adaptive, rows: Sequence[Sequence[float]]) -> list[Decision]:
    """One step for each row of layer norms."""
    return [clip(strategy, [torch.tensor([norm], dtype=torch.float64) for norm in row])[1] for row in rows]


@contextmanager
def as_on_a_device() -> Iterator[None]:
    """The tensor formulas, which run on devices, run on the CPU with numbers that can be looked at."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (adaptive, layered, window):
            patch.setattr(module, "on_host", lambda tensor: False)
        yield


def thresholds(decisions: Sequence[Decision]) -> FloatArray:
    return np.array([float(decision.threshold) for decision in decisions])


def coefficients(decisions: Sequence[Decision]) -> FloatArray:
    return np.array([float(decision.coefficient) for decision in decisions])


def clipped(decisions: Sequence[Decision]) -> BoolArray:
    return np.array([bool(decision.clipped) for decision in decisions])


def numbers(decision: Decision) -> list[float]:
    """What is recorded of a decision, and the common factor or the largest of the factors, as numbers."""
    applied = decision.multiplier if decision.factors is None else decision.factors.min()
    recorded = (decision.coefficient, decision.clipped, decision.threshold, decision.skip, decision.cosine)
    return [float(value) for value in (*recorded, 1.0 if applied is None else applied)]


def same_on_a_device(make: Callable[[], Adaptive], rows: Sequence[Sequence[float]]) -> None:
    """Tensor formulas and number formulas decide alike and keep the same state."""
    here, there = make(), make()
    expected = [numbers(decision) for decision in layer_steps(here, rows)]
    with as_on_a_device():
        decisions = layer_steps(there, rows)
    assert all(isinstance(decision.coefficient, Tensor) for decision in decisions)
    np.testing.assert_allclose([numbers(decision) for decision in decisions], expected, rtol=1e-9, atol=1e-300)
    for one, other in zip(saved_numbers(here), saved_numbers(there), strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-300)


def saved_numbers(strategy: Adaptive) -> list[Any]:
    return [leaf for leaf in tree_leaves(strategy.state_dict()) if isinstance(leaf, float)]


def resumes(make: Callable[[], Adaptive]) -> None:
    """Interrupted at any point, warm-up included, and resumed from JSON, the same bits come out; so of copies."""
    rng = np.random.default_rng(11)
    norms = np.exp(rng.normal(size=(200, 3)) + 2 * (rng.random((200, 3)) < 0.1))
    norms[[5, 90]] = math.nan
    rows = norms.tolist()
    straight = make()
    expected = [numbers(decision) for decision in layer_steps(straight, rows)]
    for cut in (0, 3, 77):
        first = make()
        layer_steps(first, rows[:cut])
        resumed = make()
        resumed.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
        for strategy in (resumed, copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
            np.testing.assert_array_equal([numbers(d) for d in layer_steps(strategy, rows[cut:])], expected[cut:])
            assert strategy.state_dict() == straight.state_dict()


def never_waits(make: Callable[[], Adaptive]) -> None:
    """On a device nothing is read, and after the first step nothing is copied to it: a captured graph can replay it."""
    for uniform in (True, False):
        with FakeTensorMode():
            strategy = make()
            tensors = [torch.empty(3, 4, device="cuda"), torch.empty(7, device="cuda")]
            gradients = gradients_of(tensors, uniform=uniform)
            for step in range(6):
                gradients.step = step
                with _NoTransfer(allowed=step == 0):
                    measurement = strategy.measure(gradients)
                    decision = strategy.decide(measurement, gradients)
                    strategy.apply(measurement, gradients, decision)
                for value in (decision.coefficient, decision.clipped, decision.threshold):
                    assert isinstance(value, Tensor) and value.device.type == "cuda" and value.shape == ()
            assert isinstance(strategy.threshold, float)
            # A step without gradients has a norm on the CPU, to which the state must not move.
            _, decision = clip(strategy, [])
            assert decision.clipped is False


class _NoTransfer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises when an operation has a tensor on the CPU: it would have to be brought to the device."""

    def __init__(self, allowed: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._allowed = allowed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            assert self._allowed or not isinstance(leaf, Tensor) or leaf.device.type != "cpu", f"{func} on the CPU"
        return result


def untouched_when_not_clipped(make: Callable[[], Adaptive]) -> None:
    """On the CPU a step that is no clip event is Python numbers, without a multiplication."""
    strategy = make()
    for at in range(12):
        gradient = torch.tensor([3.0, 4.0])
        version = gradient._version
        _, decision = clip(strategy, [gradient], at)
        assert decision.clipped is False and decision.coefficient == 1.0 and decision.skip is False
        assert decision.multiplier is None and decision.factors is None and gradient._version == version
        assert isinstance(decision.threshold, float)


def ignores_empty_steps(make: Callable[[], Adaptive]) -> None:
    """A step without any gradient decides nothing and leaves the state alone."""
    strategy = make()
    steps(strategy, [1.0, 2.0, 3.0])
    before = strategy.state_dict()
    _, decision = clip(strategy, [])
    assert decision == Decision(1.0, False, strategy.threshold) and strategy.state_dict() == before


def takes_a_cap(make: Callable[..., Adaptive]) -> None:
    """The cap holds from the first step on, can be set and scheduled, is saved, and falls back to torch's clipping."""
    strategy = make(cap=2.0)
    assert strategy.threshold == 2.0
    (decision,) = steps(strategy, [8.0])
    assert decision.clipped is True and decision.coefficient == pytest.approx(0.25, rel=1e-6)
    strategy.threshold = 0.5
    assert strategy.threshold == 0.5
    (decision,) = steps(strategy, [8.0])
    assert float(decision.coefficient) * 8 <= 0.5 + 1e-6
    resumed = make(cap=3.0)
    resumed.load_state_dict(strategy.state_dict())
    assert resumed.describe()["cap"] == 0.5
    scheduled = make(cap=lambda step: 4.0 / (1 + step))
    assert (thresholds(steps(scheduled, [8.0, 8.0], first=2)) <= [4 / 3, 1.0]).all()
    assert scheduled.state_dict()["cap"] is None
    parameter = torch.zeros(2, requires_grad=True)
    parameter.grad = torch.tensor([30.0, 40.0])
    assert make(cap=5.0).fall_back([parameter]).item() == 50.0
    assert parameter.grad.norm().item() == pytest.approx(5.0)
    assert make(cap=None).fall_back([parameter]).item() == pytest.approx(5.0)
    with pytest.raises(ValueError, match="cap=None"):
        make(cap=0)


def refuses_the_state_of_another(make: Callable[[], Adaptive]) -> None:
    strategy = make()
    with pytest.raises(ValueError, match="strategy of the checkpoint"):
        strategy.load_state_dict({"threshold": 1.0})
    saved = strategy.state_dict()
    saved["state"] = {"something": 1.0}
    with pytest.raises(ValueError):
        strategy.load_state_dict(saved)
