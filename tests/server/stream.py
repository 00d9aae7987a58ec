"""A small client that speaks frames: what a hook sends, without torch and without a training."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

import numpy as np
from gradwatch import frames
from gradwatch.frames import Frame, Kind
from numpy.typing import ArrayLike, NDArray
from websockets.sync.client import connect
from websockets.typing import Subprotocol

MISSING = np.array([0x7FF80000_6D697373], np.uint64).view(np.float64)[0]
SCALARS: Mapping[str, str] = {
    "loss": "f8",
    "total_norm": "f4",
    "clip_coefficient": "f4",
    "threshold": "f4",
    "clipped": "u1",
    "nonfinite": "u4",
    "learning_rate": "f8",
    "loss_scale": "f8",
    "step_seconds": "f4",
}
# Columns that came later; frames of hooks before have none of them.
LATER: Mapping[str, str] = {"skipped": "u1", "clip_cosine": "f4", "sample_seconds": "f4"}
BINS = 66
SAMPLES_COLUMNS = [["place", "u4", 1], ["step", "i8", 1], ["value", "f4", 1]]
HISTOGRAM_COLUMNS = [
    *SAMPLES_COLUMNS[:2],
    ["elements", "i8", 1],
    ["zero", "u4", 1],
    ["nonfinite", "u4", 1],
    ["counts", "u4", BINS],
]
_DOUBLES = (
    "base taken best_alpha critical_low critical_high learning_rate stability_threshold update_norm spent elapsed"
)
LANDSCAPE_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "line points": {"alpha": "f8", "loss": "f8", "seconds": "f4"},
    "line summary": dict.fromkeys(_DOUBLES.split(), "f8"),
    "verdict points": {"base": "f8", "clipped": "f8", "raw": "f8", "seconds": "f4"},
    "verdict unsupported": {},
    "surface plane": dict.fromkeys(["low_u", "high_u", "low_v", "high_v", "unit_u", "unit_v", "base"], "f8"),
    "surface points": {"i": "u4", "j": "u4", "loss": "f8", "seconds": "f4"},
    "surface path": {"step": "i8", "u": "f8", "v": "f8", "off": "f8", "loss": "f8"},
    "trajectory points": {"step": "i8", "loss": "f8", "norm": "f8", "seconds": "f4", "sketch": "f4"},
}
DTYPES = {"u1": "u1", "u4": "<u4", "i8": "<i8", "f4": "<f4", "f8": "<f8"}


class Writer:
    """Makes the frames of one writer, numbered as they are made."""

    def __init__(self, layers: Sequence[str] = ("a.weight", "a.bias", "b.weight"), **hello: Any) -> None:
        self.key = secrets.token_hex(16)
        self.layers = list(layers)
        self.seq = 0
        self.table = ""
        self.series = dict(SCALARS)
        self.said: dict[str, Any] = {
            "project": "p",
            "run": "r",
            "launch": self.key[:8],
            "rank": 0,
            "world_size": 1,
            "start_step": 0,
            "name": "a run",
            "group": None,
            "tags": [],
            "config": {"lr": 0.1},
            "total_steps": None,
            "clip": {"strategy": "GlobalNorm", "max_norm": 1.0, "norm_type": 2.0},
            "norm_type": 2.0,
            "nonfinite": "record",
            "host": {"hostname": "h", "platform": "p", "python": "3", "torch": "2"},
            "started_at": time.time(),
            "client": "test",
            **hello,
        }

    @property
    def run(self) -> str:
        """The id of the run in addresses."""
        return frames.run_id(self.said["project"], self.said["run"])

    def frame(self, kind: Kind, header: Mapping[str, Any], columns: Sequence[bytes] = ()) -> bytes:
        """The next frame."""
        data = frames.encode(kind, {"writer": self.key, "seq": self.seq, **header}, columns)
        self.seq += 1
        return data

    def hello(self) -> bytes:
        return self.frame(Kind.HELLO, self.said)

    def schema(self, float_type: str = "f4") -> list[list[Any]]:
        """The columns of step frames, as today's hook sends them."""
        count = len(self.layers)
        return [
            ["step", "i8", 1],
            ["time", "f8", 1],
            *([name, dtype, 1] for name, dtype in self.series.items()),
            ["grad_norm", float_type, count],
            ["absent", "u1", (count + 7) // 8],
        ]

    def layer_table(self, orders: Sequence[int] | None = None, float_type: str = "f4") -> bytes:
        """The layers frame; steps frames cite it from now on."""
        orders = list(range(len(self.layers))) if orders is None else orders
        items = [[name, [2, 3], 6, order] for name, order in zip(self.layers, orders, strict=True)]
        columns = self.schema(float_type)
        self.table = frames.table_hash(None, items, columns)
        self._float_type = float_type
        return self.frame(Kind.LAYERS, {"table": self.table, "base": None, "layers": items, "columns": columns})

    def steps(
        self,
        steps: ArrayLike,
        norms: ArrayLike | None = None,
        absent: NDArray[np.bool_] | None = None,
        **scalars: ArrayLike,
    ) -> bytes:
        """A steps frame. What is not given is 1 (norms), missing (f8) or 0."""
        number = np.asarray(steps, "<i8")
        rows, count = len(number), len(self.layers)
        values: dict[str, NDArray[Any]] = {"step": number, "time": 1e9 + number.astype("<f8")}
        for name, dtype in self.series.items():
            default = MISSING if dtype == "f8" else 0
            given = np.asarray(scalars.get(name, default))
            values[name] = np.ascontiguousarray(np.broadcast_to(given, rows), DTYPES[dtype])
        layered = np.broadcast_to(np.asarray(1.0 if norms is None else norms), (rows, count))
        values["grad_norm"] = np.ascontiguousarray(layered, DTYPES[self._float_type])
        header: dict[str, Any] = {"table": self.table, "rows": rows}
        if absent is None:
            header["without"] = ["absent"]
        else:
            values["absent"] = np.packbits(absent, axis=1, bitorder="little")
        return self.frame(Kind.STEPS, header, [column.tobytes() for column in values.values()])

    def scalars(self, rows: Iterable[tuple[str, int, float]]) -> bytes:
        """A frame of user-logged values."""
        some = list(rows)
        names = sorted({name for name, _, _ in some})
        columns = [["series", "u4", 1], ["step", "i8", 1], ["time", "f8", 1], ["value", "f8", 1]]
        body = [
            np.array([names.index(name) for name, _, _ in some], "<u4"),
            np.array([step for _, step, _ in some], "<i8"),
            np.full(len(some), 1e9, "<f8"),
            np.array([value for _, _, value in some], "<f8"),
        ]
        header = {"series": names, "rows": len(some), "columns": columns}
        return self.frame(Kind.SCALARS, header, [column.tobytes() for column in body])

    def samples(self, metric: str, rows: Iterable[tuple[int, int, float]], /, **other: Any) -> bytes:
        """A frame of sampled values: (place in the table, step, value)."""
        places, steps, values = zip(*rows, strict=True)
        columns = [np.array(places, "<u4"), np.array(steps, "<i8"), np.array(values, "<f4")]
        header = {"metric": metric, "table": self.table, "rows": len(places), "columns": SAMPLES_COLUMNS, **other}
        return self.frame(Kind.SAMPLES, header, [column.tobytes() for column in columns])

    def histograms(self, rows: Iterable[tuple[int, int, ArrayLike]], /, **other: Any) -> bytes:
        """A frame of histograms of gradients that are all finite: (place in the table, step, gradient)."""
        places, steps, gradients = zip(*rows, strict=True)
        sizes = [np.abs(np.asarray(gradient, np.float64)) for gradient in gradients]
        columns = [
            np.array(places, "<u4"),
            np.array(steps, "<i8"),
            np.array([size.size for size in sizes], "<i8"),
            np.array([(size == 0).sum() for size in sizes], "<u4"),
            np.zeros(len(sizes), "<u4"),
            np.array([bins(size) for size in sizes], "<u4"),
        ]
        header = {"metric": "grad_histogram", "table": self.table, "rows": len(places), "lowest": -48}
        header |= {"columns": HISTOGRAM_COLUMNS, **other}
        return self.frame(Kind.HISTOGRAM, header, [column.tobytes() for column in columns])

    def landscape(
        self,
        name: str,
        probe: int,
        step: int,
        columns: Mapping[str, ArrayLike] | None = None,
        about: Mapping[str, Any] | None = None,
        /,
        **other: Any,
    ) -> bytes:
        """A frame of a probe; ``name`` as in "line points". What the columns lack is 0."""
        what, part = name.split(" ")
        given = {key: np.asarray(value) for key, value in (columns or {}).items()}
        rows = max((len(value) for value in given.values() if value.ndim), default=1 if given else 0)
        schema, body = [], []
        for key, dtype in LANDSCAPE_COLUMNS[name].items():
            value = given.get(key, np.zeros(1))
            if key == "sketch":
                value = np.atleast_2d(value)
            schema.append([key, dtype, value.shape[1] if value.ndim == 2 else 1])
            shape = (rows, *value.shape[1:]) if value.ndim == 2 else rows
            body.append(np.ascontiguousarray(np.broadcast_to(value, shape), DTYPES[dtype]).tobytes())
        header = {"probe": probe, "what": what, "part": part, "step": step, "rows": rows, "columns": schema}
        return self.frame(Kind.LANDSCAPE, header | {"about": dict(about or {})} | other, body)

    def event(self, name: str, text: str = "", step: int = 0) -> bytes:
        return self.frame(Kind.EVENT, {"step": step, "time": 1e9, "name": name, "text": text})

    def dropped(self, first: int, last: int, rows: int, reason: str = "the spool was full") -> bytes:
        return self.frame(Kind.DROPPED, {"first_step": first, "last_step": last, "rows": rows, "reason": reason})

    def finish(self, state: str = "finished", reason: str = "") -> bytes:
        return self.frame(Kind.FINISH, {"state": state, "reason": reason, "last_step": None, "time": 2e9})

    def opening(self) -> bytes:
        """Hello and layers, as every stream begins."""
        return self.hello() + self.layer_table()


def bins(sizes: NDArray[np.float64]) -> list[int]:
    """How many of ``sizes`` lie below 2**-48, in [2**-48, 2**-47) and so on, and at or above 2**16."""
    edges = 2.0 ** np.arange(-48, 17)
    counts: list[int] = np.histogram(sizes[sizes > 0], [0, *edges, np.inf])[0].tolist()
    return counts


class Socket:
    """A websocket to the server, for either side of it."""

    def __init__(self, url: str, path: str, **options: Any) -> None:
        options.setdefault("subprotocols", [Subprotocol(frames.SUBPROTOCOL)])
        self._options = {"uri": url.replace("http", "ws", 1) + path, "compression": None, "max_size": None, **options}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._socket = self._open.enter_context(connect(**self._options))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def send(self, data: bytes | str) -> None:
        self._socket.send(data)

    def say(self, **message: Any) -> None:
        """Send JSON."""
        self._socket.send(json.dumps(message))

    def next(self, timeout: float = 10) -> Frame:
        """The next frame."""
        data = self._socket.recv(timeout)
        assert isinstance(data, bytes)
        return frames.decode(data)

    def until(self, kind: Kind, timeout: float = 10, **fields: Any) -> Frame:
        """The next frame of ``kind`` whose header has ``fields``; others are passed over."""
        end = time.monotonic() + timeout
        while True:
            frame = self.next(max(0.01, end - time.monotonic()))
            if frame.kind is kind and all(frame.header.get(name) == value for name, value in fields.items()):
                return frame

    def store(self, writer: Writer, data: bytes = b"") -> dict[str, Any]:
        """Send frames and wait until everything the writer made so far is acked; refusals fail."""
        if data:
            self.send(data)
        while True:
            frame = self.next()
            assert frame.kind is Kind.ACK, frame.header
            if frame.header["writer"] == writer.key and frame.header["through"] == writer.seq - 1:
                return frame.header


def columns(frame: Frame) -> dict[str, NDArray[Any]]:
    """The columns of a frame that carries its schema."""
    schema = frames.columns_from_json(frame.header["columns"])
    parts = frames.split(frame.body, schema, frame.header["rows"])
    shaped = {c.name: np.frombuffer(parts[c.name], DTYPES[c.dtype]) for c in schema}
    return {c.name: shaped[c.name] if c.width == 1 else shaped[c.name].reshape(-1, c.width) for c in schema}
