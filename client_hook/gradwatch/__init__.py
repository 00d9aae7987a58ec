"""gradwatch: clip gradients in a PyTorch training loop and watch, live in a browser, what the clipping does.

The names below load on first use, so that ``gradwatch.frames`` and ``gradwatch sync`` need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradwatch.clipping.global_norm import GlobalNorm as GlobalNorm
    from gradwatch.clipping.strategy import Strategy as Strategy
    from gradwatch.clipping.value import Value as Value
    from gradwatch.drop_in import clip_grad_norm_ as clip_grad_norm_
    from gradwatch.drop_in import clip_grad_value_ as clip_grad_value_
    from gradwatch.monitor import Monitor as Monitor
    from gradwatch.monitor import NonFiniteGradientError as NonFiniteGradientError
    from gradwatch.watching import watch as watch

__version__ = "0.1.0"

_HOMES = {
    "GlobalNorm": "gradwatch.clipping.global_norm",
    "Monitor": "gradwatch.monitor",
    "NonFiniteGradientError": "gradwatch.monitor",
    "Strategy": "gradwatch.clipping.strategy",
    "Value": "gradwatch.clipping.value",
    "clip_grad_norm_": "gradwatch.drop_in",
    "clip_grad_value_": "gradwatch.drop_in",
    "watch": "gradwatch.watching",
}

__all__ = [
    "GlobalNorm",
    "Monitor",
    "NonFiniteGradientError",
    "Strategy",
    "Value",
    "__version__",
    "clip_grad_norm_",
    "clip_grad_value_",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradwatch' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError("gradwatch's hook needs torch: pip install 'gradwatch[torch]'", name="torch") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
