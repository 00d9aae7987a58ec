"""What probes found, as the columns of landscape frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from gradwatch.frames import Column

What = Literal["line", "verdict", "surface", "trajectory"]

_LINE: Final = "base taken best_alpha critical_low critical_high learning_rate stability_threshold update_norm"
_FLOATS: Final[Mapping[tuple[str, str], str]] = {
    ("line", "points"): "alpha loss",
    ("line", "summary"): f"{_LINE} spent elapsed",
    ("verdict", "points"): "base clipped raw",
    ("verdict", "unsupported"): "",
    ("surface", "plane"): "low_u high_u low_v high_v unit_u unit_v base",
    ("surface", "points"): "i j loss",
    ("surface", "path"): "step u v off loss",
    ("trajectory", "points"): "step loss norm",
}
_TIMED: Final = {("line", "points"), ("verdict", "points"), ("surface", "points"), ("trajectory", "points")}
_DTYPES: Final = {"i": "u4", "j": "u4", "step": "i8", "seconds": "f4", "sketch": "f4"}


@dataclass(frozen=True, slots=True)
class LandscapeRows:
    """Rows of one part of one probe; ``values``: a list of numbers (for ``sketch``: of vectors) for each column."""

    probe: int
    what: What
    part: str
    step: int
    """The step at whose weights the probe is anchored."""
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    about: Mapping[str, str | int | bool] = field(default_factory=dict)

    @property
    def columns(self) -> list[Column]:
        """The schema of these rows."""
        names = _FLOATS[self.what, self.part].split()
        if (self.what, self.part) in _TIMED:
            names.append("seconds")
        columns = [Column(name, _DTYPES.get(name, "f8")) for name in names]
        if self.what == "trajectory":
            columns.append(Column("sketch", "f4", len(self.values["sketch"][0])))
        return columns

    def frame(self) -> tuple[dict[str, Any], list[memoryview]]:
        """Header (without writer and seq) and columns of the frame that holds these rows."""
        columns = self.columns
        rows = len(self.values[columns[0].name]) if columns else 0
        header = {
            "probe": self.probe,
            "what": self.what,
            "part": self.part,
            "step": self.step,
            "rows": rows,
            "columns": [column.as_json() for column in columns],
            "about": dict(self.about),
        }
        return header, [_as_bytes(self.values[column.name], column.dtype) for column in columns]


def _as_bytes(values: Sequence[Any], dtype: str) -> memoryview:
    with np.errstate(over="ignore", invalid="ignore"):
        array: npt.NDArray[Any] = np.asarray(values).astype(f"<{dtype}")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
