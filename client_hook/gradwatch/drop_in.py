"""torch's clipping functions, by their own signatures and with their own results, that also record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from gradwatch import registry
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.measure_only import MeasureOnly
from gradwatch.clipping.norms import Measurement, measure_as_torch
from gradwatch.clipping.strategy import Gradients, Strategy
from gradwatch.clipping.value import Value
from gradwatch.console import say
from gradwatch.monitor import Monitor, NonFiniteGradientError
from gradwatch.watching import watch

# Modules that stand in for the models nobody watches, each with a run of its own. They and their parameters are kept,
# so there are few; a script that clips ever new parameters (meta-learning, say) is meant to watch what it is after.
_stand_ins: list[nn.Module] = []
_MOST_STAND_INS: Final = 4
_told: list[str] = []


class TorchGlobalNorm(GlobalNorm):
    """``GlobalNorm`` with torch's norms to the last quirk: in the gradients' own precision, and overflowing in it."""

    def measure(self, gradients: Gradients) -> Measurement:
        return measure_as_torch(gradients.tensors, self.norm_type, gradients.uniform)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """``torch.nn.utils.clip_grad_norm_``, quirks included, recorded as a step.

    The step goes to the monitor that watches the parameters, else to a run of their own. Tensors that are no
    ``nn.Parameter``, and arguments under which torch does something that is no clipping (``max_norm`` <= 0,
    ``norm_type`` < 1), are left to torch's own function.
    """
    listed = _listed(parameters)
    ordinary = float(max_norm) > 0 and float(norm_type) >= 1
    strategy: Strategy = TorchGlobalNorm(max_norm, norm_type) if ordinary else MeasureOnly()
    monitor = _monitor_of(listed, strategy)
    if monitor is None or not ordinary:
        if monitor is not None:
            monitor.clip_parameters(listed, strategy, "record")
        return torch.nn.utils.clip_grad_norm_(listed, max_norm, norm_type, error_if_nonfinite, foreach)
    try:
        return monitor.clip_parameters(listed, strategy, "raise" if error_if_nonfinite else "record")
    except NonFiniteGradientError:
        # The gradients are untouched, so torch's own function says it in torch's own words.
        return torch.nn.utils.clip_grad_norm_(listed, max_norm, norm_type, True, foreach)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """``torch.nn.utils.clip_grad_value_``, recorded as a step; see ``clip_grad_norm_``."""
    listed = _listed(parameters)
    ordinary = float(clip_value) > 0
    strategy: Strategy = Value(clip_value) if ordinary else MeasureOnly()
    monitor = _monitor_of(listed, strategy)
    if monitor is not None:
        monitor.clip_parameters(listed, strategy, "record")
    if monitor is None or not ordinary:
        torch.nn.utils.clip_grad_value_(listed, clip_value, foreach)


def _listed(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)


def _monitor_of(listed: Sequence[Tensor], strategy: Strategy) -> Monitor | None:
    """The monitor that records a step of ``listed``; None: nobody does."""
    if not listed or not isinstance(listed[0], nn.Parameter):
        return None
    monitor = registry.owner_of(listed[0])
    return monitor if monitor is not None else _own_run(strategy)


def _own_run(strategy: Strategy) -> Monitor | None:
    if len(_stand_ins) == _MOST_STAND_INS:
        _tell(f"parameters of more than {_MOST_STAND_INS} models were clipped that nobody watches: watch what you need")
        return None
    stand_in = nn.Module()
    try:
        monitor = watch(stand_in, clip=strategy)
    except ValueError as error:  # of a setting in the environment
        _tell(f"nothing is recorded: {error}")
        return None
    _stand_ins.append(stand_in)
    return monitor


def _tell(text: str) -> None:
    if text not in _told:
        _told.append(text)
        say(text)
