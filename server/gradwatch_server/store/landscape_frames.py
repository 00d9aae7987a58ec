"""Frames of the loss away from the current weights: lines, verdicts on clips, surfaces and trajectories."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from gradwatch import frames
from gradwatch.frames import MAX_COUNT, Column, Frame, FrameError, Kind
from numpy.typing import NDArray

from .decode import DTYPES, check_steps

Name = tuple[str, str]  # what was probed, and which part of it a frame tells
Arrays = Mapping[str, NDArray[Any]]

MOST_SIZE: Final = 129  # points a side of a surface
MOST_SKETCH: Final = 4_096  # numbers in the sketch of one snapshot
_MOST_FACTS: Final = 32  # in `about`
_LONGEST_KEY: Final = 64
_LONGEST_FACT: Final = 1_024

LINE: Final = ("line", "points")
SUMMARY: Final = ("line", "summary")
VERDICT: Final = ("verdict", "points")
UNSUPPORTED: Final = ("verdict", "unsupported")
PLANE: Final = ("surface", "plane")
CELLS: Final = ("surface", "points")
PATH: Final = ("surface", "path")
TRAJECTORY: Final = ("trajectory", "points")

_SUMMARY: Final = ("base", "taken", "best_alpha", "critical_low", "critical_high", "learning_rate")
_PLANE: Final = ("low_u", "high_u", "low_v", "high_v", "unit_u", "unit_v", "base")
_SECONDS: Final = Column("seconds", "f4")


def _doubles(*names: str) -> list[Column]:
    return [Column(name, "f8") for name in names]


_STEP: Final = Column("step", "i8")
_SCHEMAS: Final[Mapping[Name, Sequence[Column]]] = {
    LINE: (*_doubles("alpha", "loss"), _SECONDS),
    SUMMARY: _doubles(*_SUMMARY, "stability_threshold", "update_norm", "spent", "elapsed"),
    VERDICT: (*_doubles("base", "clipped", "raw"), _SECONDS),
    UNSUPPORTED: (),
    PLANE: _doubles(*_PLANE),
    CELLS: (Column("i", "u4"), Column("j", "u4"), Column("loss", "f8"), _SECONDS),
    PATH: (_STEP, *_doubles("u", "v", "off", "loss")),
    TRAJECTORY: (_STEP, *_doubles("loss", "norm"), _SECONDS),  # and the sketch, whose width is the writer's choice
}
# The kind under which a frame is stored says what it tells, so that one index finds the frames of one part.
_STORED_KINDS: Final = {name: (at << 8 | Kind.LANDSCAPE) for at, name in enumerate(_SCHEMAS, 1)}
_ROWS: Final = {SUMMARY: 1, PLANE: 1, UNSUPPORTED: 0}  # of every other part: one or more


@dataclass(frozen=True, slots=True)
class ProbeRows:
    """One frame of a probe. A probe is known by the attempt and its number; numbers count up within a writer."""

    name: Name
    attempt: int
    probe: int
    step: int  # the anchor: losses are those around the weights at this step
    about: Mapping[str, str | int | bool]
    columns: Arrays  # as in _SCHEMAS; sketch: rows x width

    @property
    def key(self) -> tuple[int, int]:
        """What tells the probe from others of the run."""
        return self.attempt, self.probe


def stored_kind(name: Name) -> int:
    """What stands in ``frames.kind`` for the frames of a part."""
    return _STORED_KINDS[name]


def name_of(frame: Frame) -> Name:
    """What was probed, and the part. Raises FrameError where there is no such thing."""
    what, part = frame.header.get("what"), frame.header.get("part")
    known = list(dict.fromkeys(name for name, _ in _SCHEMAS))
    if not isinstance(what, str) or what not in known:
        raise FrameError("field", f"'what' must be one of {json.dumps(known)}, not {str(what)[:40]!r}")
    parts = [known for about, known in _SCHEMAS if about == what]
    if not isinstance(part, str) or part not in parts:
        raise FrameError("field", f"'part' of a {what} must be one of {json.dumps(parts)}, not {str(part)[:40]!r}")
    return what, part


def check_landscape(frame: Frame) -> tuple[ProbeRows, int, int]:
    """The rows of a landscape frame, and the first and the last step they are about. Raises FrameError."""
    header, name = frame.header, name_of(frame)
    frames.check_count("'probe'", header.get("probe"))
    step = frames.check_count("'step'", header.get("step"))
    rows = frames.check_count("'rows'", header.get("rows"))
    about = _check_about(header.get("about", {}))
    _check_schema(name, frames.columns_from_json(header.get("columns")), about)
    if rows != _ROWS.get(name, max(1, rows)):
        raise FrameError("field", f"'rows' of a {' '.join(name)} frame must be {_ROWS.get(name, 'at least 1')}")
    found = decode_landscape(frame, attempt=0)
    check = _CHECKS.get(name)
    if check:
        check(found.columns, found.about)
    steps = found.columns["step"] if name == TRAJECTORY else np.array([step])
    return found, int(steps.min()), int(steps.max())


def decode_landscape(frame: Frame, attempt: int) -> ProbeRows:
    """The rows of a frame that was checked when it came."""
    header = frame.header
    schema = frames.columns_from_json(header["columns"])
    parts = frames.split(frame.body, schema, header["rows"])
    columns = {column.name: np.frombuffer(parts[column.name], DTYPES[column.dtype]) for column in schema}
    if "sketch" in columns:
        columns["sketch"] = columns["sketch"].reshape(header["rows"], -1)
    return ProbeRows(name_of(frame), attempt, header["probe"], header["step"], header.get("about", {}), columns)


def _check_about(about: Any) -> Mapping[str, str | int | bool]:
    if not isinstance(about, dict) or len(about) > _MOST_FACTS:
        raise FrameError("field", f"'about' must be an object of at most {_MOST_FACTS} facts")
    for name, value in about.items():
        frames.check_text("a name in 'about'", name, _LONGEST_KEY)
        if isinstance(value, str):
            frames.check_text(f"{name!r} in 'about'", value, _LONGEST_FACT)
        elif not isinstance(value, int) or abs(value) > MAX_COUNT:
            kinds = "a string, true, false or a whole number; numbers from training belong into columns"
            raise FrameError("field", f"{name!r} in 'about' must be {kinds}")
    return about


def _check_schema(name: Name, columns: list[Column], about: Mapping[str, Any]) -> None:
    wanted = [*_SCHEMAS[name]]
    if name == TRAJECTORY:
        width = columns[-1].width if columns else 0
        if not 1 <= width <= MOST_SKETCH or about.get("k", width) != width:
            raise FrameError("field", f"'sketch' must be as wide as 'k' in 'about' says, from 1 to {MOST_SKETCH}")
        wanted.append(Column("sketch", "f4", width))
    if columns != wanted:
        raise FrameError("field", f"'columns' must be {json.dumps([column.as_json() for column in wanted])}")


def _check_line(arrays: Arrays, about: Mapping[str, Any]) -> None:
    _check_finite(arrays, "alpha")
    _check_not_negative(arrays, "seconds")


def _check_summary(arrays: Arrays, about: Mapping[str, Any]) -> None:
    _check_not_negative(arrays, "spent", "elapsed")
    low, high = float(arrays["critical_low"][0]), float(arrays["critical_high"][0])
    # Not a number: not measured. An infinite end: the loss does not rise up to the lower one.
    if not (np.isnan(low) and np.isnan(high)) and not 0 <= low < high:
        raise FrameError("field", "'critical_low' must be at least 0 and below 'critical_high', or both NaN")


def _check_verdict(arrays: Arrays, about: Mapping[str, Any]) -> None:
    _check_not_negative(arrays, "seconds")


def _check_reason(arrays: Arrays, about: Mapping[str, Any]) -> None:
    if not isinstance(about.get("reason"), str) or not about["reason"]:
        raise FrameError("field", "'reason' in 'about' must say why there are no verdicts")


def _check_plane(arrays: Arrays, about: Mapping[str, Any]) -> None:
    _check_size(about.get("size"))
    _check_finite(arrays, *_PLANE[:4])
    _check_not_negative(arrays, "unit_u", "unit_v")
    for axis in ("u", "v"):
        if not arrays[f"low_{axis}"][0] < arrays[f"high_{axis}"][0]:
            raise FrameError("field", f"'low_{axis}' must be below 'high_{axis}'")


def _check_cells(arrays: Arrays, about: Mapping[str, Any]) -> None:
    size = _check_size(about.get("size", MOST_SIZE))
    for axis in ("i", "j"):
        if int(arrays[axis].max()) >= size:
            raise FrameError("field", f"a row has {axis} = {int(arrays[axis].max())} on a side of {size} points")
    _check_not_negative(arrays, "seconds")


def _check_path(arrays: Arrays, about: Mapping[str, Any]) -> None:
    check_steps(arrays["step"], increasing=False)


def _check_trajectory(arrays: Arrays, about: Mapping[str, Any]) -> None:
    check_steps(arrays["step"], increasing=False)
    _check_not_negative(arrays, "seconds")


_CHECKS: Final[Mapping[Name, Callable[[Arrays, Mapping[str, Any]], None]]] = {
    LINE: _check_line,
    SUMMARY: _check_summary,
    VERDICT: _check_verdict,
    UNSUPPORTED: _check_reason,
    PLANE: _check_plane,
    CELLS: _check_cells,
    PATH: _check_path,
    TRAJECTORY: _check_trajectory,
}


def _check_size(size: Any) -> int:
    if type(size) is not int or not 2 <= size <= MOST_SIZE:
        raise FrameError("field", f"'size' in 'about' must be a whole number from 2 to {MOST_SIZE}")
    return size


def _check_finite(arrays: Arrays, *names: str) -> None:
    for name in names:
        if not np.isfinite(arrays[name]).all():
            raise FrameError("field", f"'{name}' must be finite")


def _check_not_negative(arrays: Arrays, *names: str) -> None:
    _check_finite(arrays, *names)
    for name in names:
        if (arrays[name] < 0).any():
            raise FrameError("field", f"'{name}' must not be below 0")
