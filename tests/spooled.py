"""What a training has left in its spool, read frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gradwatch import frames
from gradwatch.frames import Column, Frame, Kind

DTYPES = {"u1": "<u1", "u4": "<u4", "i8": "<i8", "f4": "<f4", "f8": "<f8"}


@dataclass
class Spooled:
    """All steps of all runs in a spool, in order; ``absent``: (steps, layers), True where there was no gradient."""

    hello: dict[str, Any] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    values: list[tuple[str, int, float]] = field(default_factory=list)
    finish: dict[str, Any] = field(default_factory=dict)
    others: list[Frame] = field(default_factory=list)

    @property
    def norms(self) -> npt.NDArray[np.float64]:
        return self.columns["grad_norm"].astype(np.float64)

    @property
    def absent(self) -> npt.NDArray[np.bool_]:
        packed = self.columns["absent"]
        return np.unpackbits(packed, axis=1, count=len(self.layers), bitorder="little").astype(bool)

    def series(self, name: str) -> npt.NDArray[np.float64]:
        return self.columns[name].reshape(-1).astype(np.float64)


def spooled(directory: Path) -> Spooled:
    """What lies in the spool of ``directory`` (a GRADWATCH_DIR)."""
    found = Spooled()
    schema: list[Column] = []
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    for writer in sorted((directory / "spool").iterdir()):
        data = b"".join(segment.read_bytes() for segment in sorted(writer.iterdir()))
        for frame in sorted(frames.decode_all(data), key=lambda frame: frame.header["seq"]):
            if frame.kind is Kind.LAYERS:
                schema = frames.columns_from_json(frame.header["columns"])
                found.layers = [layer[0] for layer in frame.header["layers"]]
            elif frame.kind is Kind.STEPS:
                _add(parts, frame, schema)
            else:
                _sort_in(found, frame)
    found.columns = {name: np.concatenate(pieces) for name, pieces in parts.items()}
    return found


def _add(parts: dict[str, list[npt.NDArray[Any]]], frame: Frame, schema: list[Column]) -> None:
    rows = frame.header["rows"]
    here = [column for column in schema if column.name not in frame.header.get("without", [])]
    body = frames.split(frame.body, here, rows)
    for column in schema:
        shape = (rows, column.width)
        known = column.name in body
        values = np.frombuffer(body[column.name], DTYPES[column.dtype]) if known else np.zeros(shape, "u1")
        parts.setdefault(column.name, []).append(values.reshape(shape))


def _sort_in(found: Spooled, frame: Frame) -> None:
    match frame.kind:
        case Kind.HELLO:
            found.hello = frame.header
        case Kind.EVENT:
            found.events.append(frame.header)
        case Kind.FINISH:
            found.finish = frame.header
        case Kind.SCALARS:
            columns = frames.columns_from_json(frame.header["columns"])
            body = frames.split(frame.body, columns, frame.header["rows"])
            series, steps, _, values = (np.frombuffer(body[c.name], DTYPES[c.dtype]) for c in columns)
            names = [frame.header["series"][at] for at in series]
            found.values += list(zip(names, steps.tolist(), values.tolist(), strict=True))
        case _:
            found.others.append(frame)
