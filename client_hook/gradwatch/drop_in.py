"""torch's clipping functions, by their own signatures and with their own results, that also record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from gradwatch import registry
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.measure_only import MeasureOnly
from gradwatch.clipping.strategy import Strategy
from gradwatch.clipping.value import Value
from gradwatch.monitor import Monitor, NonFiniteGradientError
from gradwatch.watching import watch

# Runs of parameters that no monitor watches, by their first parameter; the module stands in for the unknown model.
_own_runs = WeakTensorKeyDictionary()


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """``torch.nn.utils.clip_grad_norm_``, quirks included, recorded as a step.

    The step goes to the monitor that watches the parameters, else to a run of their own. Arguments under which torch
    does something that is no clipping (``max_norm`` <= 0, ``norm_type`` < 1) are left to torch's own function.
    """
    listed = _listed(parameters)
    if not listed or not (float(max_norm) > 0 and float(norm_type) >= 1):
        _record(listed, MeasureOnly())
        return torch.nn.utils.clip_grad_norm_(listed, max_norm, norm_type, error_if_nonfinite, foreach)
    strategy = GlobalNorm(max_norm, norm_type)
    monitor = _monitor_of(listed, strategy)
    try:
        return monitor.clip_parameters(listed, strategy, "raise" if error_if_nonfinite else "record")
    except NonFiniteGradientError:
        # The gradients are untouched, so torch's own function says it in torch's own words.
        return torch.nn.utils.clip_grad_norm_(listed, max_norm, norm_type, True, foreach)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """``torch.nn.utils.clip_grad_value_``, recorded as a step; see ``clip_grad_norm_``."""
    listed = _listed(parameters)
    if not listed or not float(clip_value) > 0:
        _record(listed, MeasureOnly())
        torch.nn.utils.clip_grad_value_(listed, clip_value, foreach)
        return
    _record(listed, Value(clip_value))


def _listed(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)


def _record(listed: Sequence[Tensor], strategy: Strategy) -> None:
    if listed:
        _monitor_of(listed, strategy).clip_parameters(listed, strategy, "record")


def _monitor_of(listed: Sequence[Tensor], strategy: Strategy) -> Monitor:
    monitor = registry.owner_of(listed[0])
    if monitor is None:
        model = nn.Module()
        monitor = watch(model, clip=strategy)
        _own_runs[listed[0]] = model
    return monitor
