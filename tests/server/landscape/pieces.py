"""Rows of probes as the store gives them, made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gradwatch_server.store.landscape_frames import ProbeRows
from numpy.typing import ArrayLike


def piece(
    name: str,
    columns: Mapping[str, ArrayLike] | None = None,
    *,
    probe: int = 0,
    step: int = 0,
    attempt: int = 1,
    **about: Any,
) -> ProbeRows:
    """One frame's rows; ``name`` as in "line points"."""
    what, part = name.split(" ")
    arrays = {key: np.atleast_1d(np.asarray(value)) for key, value in (columns or {}).items()}
    return ProbeRows((what, part), attempt, probe, step, about, arrays)
