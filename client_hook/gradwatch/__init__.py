"""gradwatch: clip gradients in a PyTorch training loop and watch, live in a browser, what the clipping does.

The names below load on first use, so that ``gradwatch.frames`` and ``gradwatch sync`` need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradwatch.client import Client as Client
    from gradwatch.clipping.ada_gc import AdaGC as AdaGC
    from gradwatch.clipping.agc import AGC as AGC
    from gradwatch.clipping.auto_clip import AutoClip as AutoClip
    from gradwatch.clipping.ema_ratio import EMARatio as EMARatio
    from gradwatch.clipping.global_norm import GlobalNorm as GlobalNorm
    from gradwatch.clipping.normalize import Normalize as Normalize
    from gradwatch.clipping.per_group import PerGroup as PerGroup
    from gradwatch.clipping.per_layer import PerLayer as PerLayer
    from gradwatch.clipping.skip_spikes import SkipSpikes as SkipSpikes
    from gradwatch.clipping.strategy import Strategy as Strategy
    from gradwatch.clipping.through_time import ThroughTime as ThroughTime
    from gradwatch.clipping.value import Value as Value
    from gradwatch.clipping.z_clip import ZClip as ZClip
    from gradwatch.drop_in import clip_grad_norm_ as clip_grad_norm_
    from gradwatch.drop_in import clip_grad_value_ as clip_grad_value_
    from gradwatch.fetch import ClientError as ClientError
    from gradwatch.monitor import Monitor as Monitor
    from gradwatch.monitor import NonFiniteGradientError as NonFiniteGradientError
    from gradwatch.watching import watch as watch

__version__ = "0.1.0"

_HOMES = {
    "AGC": "gradwatch.clipping.agc",
    "AdaGC": "gradwatch.clipping.ada_gc",
    "AutoClip": "gradwatch.clipping.auto_clip",
    "Client": "gradwatch.client",
    "ClientError": "gradwatch.fetch",
    "EMARatio": "gradwatch.clipping.ema_ratio",
    "GlobalNorm": "gradwatch.clipping.global_norm",
    "Monitor": "gradwatch.monitor",
    "NonFiniteGradientError": "gradwatch.monitor",
    "Normalize": "gradwatch.clipping.normalize",
    "PerGroup": "gradwatch.clipping.per_group",
    "PerLayer": "gradwatch.clipping.per_layer",
    "SkipSpikes": "gradwatch.clipping.skip_spikes",
    "Strategy": "gradwatch.clipping.strategy",
    "ThroughTime": "gradwatch.clipping.through_time",
    "Value": "gradwatch.clipping.value",
    "ZClip": "gradwatch.clipping.z_clip",
    "clip_grad_norm_": "gradwatch.drop_in",
    "clip_grad_value_": "gradwatch.drop_in",
    "watch": "gradwatch.watching",
}

__all__ = [
    "AGC",
    "AdaGC",
    "AutoClip",
    "Client",
    "ClientError",
    "EMARatio",
    "GlobalNorm",
    "Monitor",
    "NonFiniteGradientError",
    "Normalize",
    "PerGroup",
    "PerLayer",
    "SkipSpikes",
    "Strategy",
    "ThroughTime",
    "Value",
    "ZClip",
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
