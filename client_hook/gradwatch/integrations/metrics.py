"""Other libraries' metrics on their way into series of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradwatch.journal import OWN_SERIES


def loggable(metrics: Mapping[str, Any], prefix: str) -> dict[str, float | Tensor]:
    """Those of ``metrics`` that are one real number each; names that gradwatch's own series have get ``prefix``."""
    found: dict[str, float | Tensor] = {}
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
            continue
        if isinstance(value, Tensor) and (value.numel() != 1 or value.is_complex()):
            continue
        found[prefix + name if name in OWN_SERIES else name] = value
    return found
