"""What a tool has really kept: read back from its files or its server, and counted."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import struct
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_PREFIX: Final = "grad_norm/"
_BLOCK: Final = 32_768  # of LevelDB's log format, which W&B writes behind a header of its own
_FILE_HEADER: Final = 7
_RECORD_HEADER: Final = struct.Struct("<IHB")  # crc32, length, kind: 1 whole, 2 first, 3 middle, 4 last


@dataclass
class Stored:
    """Layer norms found, in how many steps, and their sum, which must be the same for every tool."""

    points: int = 0
    sum: float = 0.0
    histograms: int = 0
    steps: set[int] = field(default_factory=set)

    def add(self, step: int, value: float) -> None:
        self.points += 1
        self.sum += value
        self.steps.add(step)

    def as_json(self) -> dict[str, Any]:
        return {"points": self.points, "sum": self.sum, "histograms": self.histograms, "steps": len(self.steps)}


def read_back(key: str, folder: Path, url: str | None) -> Stored:
    """Everything that the contender has kept in ``folder``; of gradwatch, what its server at ``url`` gives."""
    if key == "gradwatch" and url is not None:
        return _gradwatch(url)
    if key == "tensorboard":
        return _tensorboard(folder)
    if key.startswith("wandb"):
        return _wandb(folder)
    return _trackio(folder) if key.startswith("trackio") else Stored()


def _gradwatch(url: str) -> Stored:
    with urllib.request.urlopen(f"{url}/api/runs", timeout=30) as answer:
        run = json.load(answer)["runs"][0]["id"]
    with urllib.request.urlopen(f"{url}/api/runs/{run}/export?format=csv", timeout=120) as answer:
        rows = csv.DictReader(io.TextIOWrapper(answer, "utf-8"))
        found = Stored()
        for row in rows:
            for name, text in row.items():
                if name.startswith(_PREFIX) and text:
                    found.add(int(row["step"]), float(text))
    return found


def _tensorboard(folder: Path) -> Stored:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found = Stored()
    for file in folder.glob("events.out.tfevents.*"):
        for event in LegacyEventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag.startswith(_PREFIX):
                    found.add(event.step, value.simple_value)
    return found


def _wandb(folder: Path) -> Stored:
    from wandb.proto.wandb_internal_pb2 import Record

    found = Stored()
    for file in folder.glob("wandb/offline-run-*/run-*.wandb"):
        for data in _leveldb_records(file.read_bytes()):
            record = Record.FromString(data)
            for item in record.history.item:
                key = item.key or "/".join(item.nested_key)
                if key.startswith(_PREFIX):
                    found.add(record.history.step.num, float(item.value_json or item.number))
                found.histograms += key.startswith("gradients/") and key.endswith("/bins")
    return found


def _leveldb_records(data: bytes) -> Iterator[bytes]:
    at, whole = _FILE_HEADER, b""
    while at + _RECORD_HEADER.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _RECORD_HEADER.size:
            at += left
            continue
        _, length, kind = _RECORD_HEADER.unpack_from(data, at)
        at += _RECORD_HEADER.size
        whole += data[at : at + length]
        at += length
        if kind in (1, 4):
            yield whole
            whole = b""


def _trackio(folder: Path) -> Stored:
    found = Stored()
    for file in folder.glob("*.db"):
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
            for step, metrics in connection.execute("SELECT step, metrics FROM metrics"):
                for name, value in json.loads(metrics).items():
                    if name.startswith(_PREFIX):
                        found.add(step, value)
        connection.close()
    return found
