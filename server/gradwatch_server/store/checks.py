"""What a frame's header must hold before anything of it is stored. Every complaint names the field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gradwatch import frames
from gradwatch.frames import Column, FrameError, Kind

from .decode import DTYPES, LAYER_METRIC, Layer

# What a hook may send.
INCOMING: Final = frozenset(kind for kind in Kind if kind < Kind.ACK)
_HEX: Final = frozenset("0123456789abcdef")
_MOST_COMMANDS: Final = 64
_MOST_TAGS: Final = 100
_LONGEST_TEXT: Final = 64 * 1024
_WIDEST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Hello:
    """A writer introducing itself."""

    writer: str
    project: str
    run: str
    launch: str
    rank: int
    start_step: int
    name: str
    group: str | None
    tags: list[str]
    total_steps: int | None
    norm_type: float
    started_at: float
    # Shown as it came: config, clip, norm_type, nonfinite, host, client, world_size, control, commands.
    about: dict[str, Any]

    @property
    def run_id(self) -> str:
        return frames.run_id(self.project, self.run)


@dataclass(frozen=True, slots=True)
class LayersPart:
    """One layers frame."""

    table: str
    base: str | None
    layers: list[Layer]
    columns: list[Column]


def writer_of(header: Mapping[str, Any]) -> str:
    """The writer's id: 32 hexadecimal digits."""
    value = header.get("writer")
    if not isinstance(value, str) or len(value) != 32 or not _HEX.issuperset(value):
        raise FrameError("field", "'writer' must be 32 lower-case hexadecimal digits")
    return value


def seq_of(header: Mapping[str, Any]) -> int:
    """The frame's number."""
    return frames.check_count("'seq'", header.get("seq"))


def hello(header: Mapping[str, Any]) -> Hello:
    """A hello's fields."""
    if frames.check_count("'seq'", header.get("seq")) != 0:
        raise FrameError("field", "a hello is a writer's first frame: its 'seq' must be 0")
    run = _name(header, "run")
    tags = header.get("tags") or []
    if not isinstance(tags, list) or len(tags) > _MOST_TAGS:
        raise FrameError("field", f"'tags' must be a list of at most {_MOST_TAGS} strings")
    kept = ("config", "clip", "norm_type", "nonfinite", "host", "client", "world_size")
    return Hello(
        writer=writer_of(header),
        project=_name(header, "project"),
        run=run,
        launch=_name(header, "launch"),
        rank=frames.check_count("'rank'", header.get("rank", 0)),
        start_step=frames.check_count("'start_step'", header.get("start_step", 0)),
        name=run if header.get("name") is None else frames.check_text("'name'", header["name"]),
        group=None if header.get("group") is None else frames.check_text("'group'", header["group"]),
        tags=[frames.check_text("a tag", tag) for tag in tags],
        total_steps=count_or_none(header, "total_steps"),
        norm_type=_norm_type(header.get("norm_type", 2.0)),
        started_at=moment(header, "started_at"),
        about={**{name: header.get(name) for name in kept}, **_control(header)},
    )


def layers(header: Mapping[str, Any]) -> LayersPart:
    """A layers frame's fields. Its hash must be that of what it holds."""
    base = header.get("base")
    if base is not None:
        frames.check_text("'base'", base, 64)
    items, schema = header.get("layers"), header.get("columns")
    if not isinstance(items, list) or len(items) > frames.MAX_LAYERS:
        raise FrameError("field", too_many_layers(len(items) if isinstance(items, list) else 0))
    columns = frames.columns_from_json(schema)
    if columns:
        _check_schema(columns)
    part = LayersPart(frames.check_text("'table'", header.get("table"), 64), base, [_layer(i) for i in items], columns)
    if part.table != frames.table_hash(base, items, schema if isinstance(schema, list) else []):
        raise FrameError("field", "'table' is not the hash of this part's base, layers and columns")
    return part


def too_many_layers(count: int) -> str:
    """The message for a table that is no list, or too long."""
    if not count:
        return "'layers' must be a list of [name, shape, numel, order]"
    return (
        f"'layers' has {count} layers and at most {frames.MAX_LAYERS} are recorded one by one: "
        "above that the hook degrades to modules and scalars"
    )


def _layer(item: Any) -> Layer:
    if not (isinstance(item, list) and len(item) == 4 and isinstance(item[1], list) and len(item[1]) <= 64):
        raise FrameError("field", f"{str(item)[:80]} is no layer: write [name, shape, numel, order]")
    shape = tuple(frames.check_count("a layer's shape", size) for size in item[1])
    order = frames.check_count("a layer's order", item[3])
    if order > frames.MAX_LAYERS:
        raise FrameError("field", f"a layer's order must be at most {frames.MAX_LAYERS}, not {order}")
    numel = frames.check_count("a layer's numel", item[2])
    return Layer(frames.check_text("a layer's name", item[0]), shape, numel, order)


def _check_schema(columns: list[Column]) -> None:
    names = [column.name for column in columns]
    if len(set(names)) != len(names):
        raise FrameError("field", "'columns' names a column twice")
    if "step" not in names:
        raise FrameError("field", "'columns' must hold a column named step")
    for column in columns:
        if not 1 <= column.width <= _WIDEST and column.name not in (LAYER_METRIC, "absent"):
            raise FrameError("field", f"the column {column.name!r} has the width {column.width}")
        if column.name in ("step", "time", "absent"):
            wanted = {"step": "i8", "time": "f8", "absent": "u1"}[column.name]
            if column.dtype != wanted or (column.name != "absent" and column.width != 1):
                raise FrameError("field", f"the column {column.name!r} must be of type {wanted}")
        if column.name == LAYER_METRIC and DTYPES[column.dtype].kind != "f":
            raise FrameError("field", f"the column {column.name!r} must be of type f4 or f8")


def check_widths(columns: Sequence[Column], count: int) -> None:
    """The widths that follow from the number of layers."""
    for column in columns:
        wanted = {LAYER_METRIC: count, "absent": (count + 7) // 8}.get(column.name)
        if wanted is not None and column.width != wanted:
            raise FrameError("field", f"the column {column.name!r} must be {wanted} wide for {count} layers")


def moment(header: Mapping[str, Any], name: str) -> float:
    """A time in unix seconds."""
    value = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e11:
        raise FrameError("field", f"'{name}' must be a time in unix seconds, not {str(value)[:40]!r}")
    return float(value)


def count_or_none(header: Mapping[str, Any], name: str) -> int | None:
    """A whole number, or None."""
    return None if header.get(name) is None else frames.check_count(f"'{name}'", header[name])


def text(header: Mapping[str, Any], name: str) -> str:
    """A text that may be long and may be empty."""
    return frames.check_text(f"'{name}'", header.get(name) or "", _LONGEST_TEXT)


def _name(header: Mapping[str, Any], name: str) -> str:
    value = frames.check_text(f"'{name}'", header.get(name))
    if not value:
        raise FrameError("field", f"'{name}' must not be empty")
    return value


def _control(header: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the run takes commands, and which; hooks before the second one said only whether."""
    allowed = header.get("control", False)
    if not isinstance(allowed, bool):
        raise FrameError("field", "'control' must be true or false")
    commands = header.get("commands", ["probe_landscape"] if allowed else [])
    if not isinstance(commands, list) or len(commands) > _MOST_COMMANDS:
        raise FrameError("field", f"'commands' must be a list of at most {_MOST_COMMANDS} names")
    named = [frames.check_text("one of 'commands'", command) for command in commands]
    return {"control": allowed, "commands": named if allowed else []}


def _norm_type(value: Any) -> float:
    if value == "inf":
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise FrameError("field", "'norm_type' must be a number above 0 or \"inf\"")
    return float(value)
