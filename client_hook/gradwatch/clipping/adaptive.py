"""What the adaptive strategies share: a limit that follows the norms seen so far, under a cap that does not.

Their formulas are written once, for Python numbers (on the CPU, where they cost a tenth of 0-dimensional tensors) and
for tensors on a device (where reading a number would make the training wait).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Final, overload

import torch
from torch import Tensor

from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.scaling import EPSILON
from gradwatch.clipping.state import State, widest_float
from gradwatch.clipping.strategy import Decision, Gradients, Strategy
from gradwatch.clipping.threshold import Scheduled, Threshold

Number = Tensor | float
Truth = Tensor | bool

# Of norms that are squared, only those enter whose squares can still be added up by the thousand.
_SQUARABLE: Final = {torch.float64: 1e150, torch.float32: 1e15}


def on_host(tensor: Tensor) -> bool:
    """Whether reading ``tensor`` costs nothing."""
    return tensor.device.type == "cpu"


@overload
def choose(condition: Tensor, one: Number, other: Number) -> Tensor: ...


@overload
def choose(condition: Truth, one: Tensor, other: Tensor) -> Tensor: ...


@overload
def choose(condition: Truth, one: Number, other: Number) -> Number: ...


def choose(condition: Truth, one: Number, other: Number) -> Number:
    """``one`` where ``condition`` holds, else ``other``."""
    if not isinstance(condition, Tensor):
        return one if condition else other
    if not isinstance(one, Tensor) and not isinstance(other, Tensor):
        one = torch.full_like(condition, one, dtype=widest_float(condition.device))  # torch.where would make it float32
    return torch.where(condition, one, other)


def read(tensor: Tensor) -> Number:
    """The number of a 0-dimensional state tensor, if that costs nothing."""
    return tensor.item() if on_host(tensor) else tensor


def number_of(total: Tensor) -> Number:
    """A total norm as the strategies calculate with it."""
    return total.item() if on_host(total) else total.to(widest_float(total.device))


def write(tensor: Tensor, value: Number) -> None:
    """Change a state tensor in place, to ``value`` of the same shape."""
    if isinstance(value, Tensor):
        torch.mul(value, 1.0, out=tensor)  # copy_ does the same, but cannot be tried without a GPU
    else:
        tensor.fill_(value)


def enters(norm: Number, squared: bool = False) -> Truth:
    """Whether ``norm`` may enter a state: finite and above 0. A step without any gradient says nothing about the next.

    ``squared``: the state holds squares of it; then what would overflow does not enter either.
    """
    if not squared:
        return (norm > 0) & (norm < math.inf)
    return (norm > 0) & (norm < (_SQUARABLE[norm.dtype] if isinstance(norm, Tensor) else _SQUARABLE[torch.float64]))


def in_range(name: str, value: float, low: float, high: float, advice: str) -> float:
    """``value`` as a float. Raises ValueError unless low < ``value`` < high, TypeError unless it is a number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}: {advice}")
    if not low < value < high:
        bounds = f"above {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} must be {bounds}, not {value!r}: {advice}")
    return float(value)


def at_least(name: str, value: int, least: int, advice: str) -> int:
    """``value`` as an int. Raises ValueError unless it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}: {advice}")
    return int(value)


class Adaptive(Strategy):
    """The total norm is scaled down to a limit that ``follow`` gives, and always to ``cap`` at most.

    ``cap``: above 0, or a function of the step; None: no cap. Assigning ``threshold`` assigns the cap. The cap never
    enters a state, so that changing it does not disturb what was learned. A step whose total norm is 0, not finite, or
    made of no gradient at all leaves the state as it is; its gradients fare as under torch's clipping: an infinite
    total norm zeroes what is finite, a NaN spreads.
    """

    def __init__(self, cap: Scheduled | None, **initial: float | list[float]) -> None:
        self._cap = Threshold("cap", math.inf if cap is None else cap, "write cap=None to have no cap")
        self._state = State(**initial)
        self._in_force: Number | None = None

    @property
    def threshold(self) -> float:
        """The limit last in force where it is known without waiting (CPU), else the cap."""
        return self._in_force if isinstance(self._in_force, float) else self._cap.value

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._cap.set(value)
        self._in_force = None

    def follow(self, norm: Number, state: dict[str, Tensor]) -> Number:
        """The limit for a step of this total norm; moves ``state`` on. Infinity: none, or none yet."""
        return math.inf

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        if not gradients.tensors:
            return self.without_gradients()
        limit = self.follow(number_of(measurement.total), self._state.on(measurement.total.device))
        return self.remember(scale_above(measurement, capped(limit, self._cap.at(gradients.step))))

    def without_gradients(self) -> Decision:
        return Decision(1.0, False, self.threshold)

    def remember(self, decision: Decision) -> Decision:
        self._in_force = decision.threshold
        return decision

    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        """Clips the total norm at the limit last in force (waits for the device)."""
        limit = self._cap.value if self._in_force is None else float(self._in_force)
        if limit == math.inf:
            return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        return torch.nn.utils.clip_grad_norm_(parameters, limit)

    def describe(self) -> dict[str, Any]:
        return {"strategy": type(self).__name__, **self.arguments(), "cap": self._cap.describe()}

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """As given to the constructor, without ``cap``."""

    def state_dict(self) -> dict[str, Any]:
        return {"strategy": type(self).__name__, "cap": self._cap.save(), "state": self._state.save()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError unless ``state`` is a ``state_dict`` of the same strategy."""
        name = type(self).__name__
        if state.get("strategy") != name:
            raise ValueError(
                f"the saved state is of {state.get('strategy', 'another strategy')}, and this monitor clips by {name}: "
                "give watch(clip=...) the strategy of the checkpoint, or leave the strategy's state out"
            )
        self._state.load(state["state"])
        self._cap.load(state["cap"])
        self._in_force = None


def capped(limit: Number, cap: Number) -> Number:
    """The smaller of both."""
    return limit.clamp(max=cap) if isinstance(limit, Tensor) else min(limit, cap)


def scale_above(measurement: Measurement, limit: Number, skip: Truth = False) -> Decision:
    """Scale the total norm down to ``limit`` if it is above, by ``limit / (total + 1e-6)``; else change nothing.

    Unlike ``scale_down``, which keeps torch's bits, a norm of no more than ``limit`` is left alone however small both
    are: a limit that follows norms of 1e-6 would halve gradients that it is not meant to touch. Clip event: total norm
    > ``limit``, or ``skip``. A skipped step has the coefficient 0, and its gradients are left as they are.
    """
    total = measurement.total
    if not on_host(total):
        coefficient = (limit / (total + EPSILON)).masked_fill(total <= limit, 1.0).to(total.dtype)
        if not isinstance(skip, Tensor):
            return Decision(coefficient, total > limit, limit, coefficient)
        multiplier = coefficient.masked_fill(skip, 1.0)
        return Decision(coefficient.masked_fill(skip, 0.0), (total > limit) | skip, limit, multiplier, skip=skip)
    norm, limit = total.item(), float(limit)
    if skip:
        return Decision(0.0, True, limit, skip=True)
    if norm <= limit:
        return Decision(1.0, False, limit)
    multiplier = limit / (total + EPSILON)
    value = multiplier.item()
    return Decision(value, norm > limit, limit, None if value == 1.0 else multiplier)
