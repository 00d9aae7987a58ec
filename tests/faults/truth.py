"""What a streaming client says it produced, against what a server tells: bit by bit."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from gradwatch import frames
from numpy.typing import NDArray

from tests.faults.streaming_client import BAD_EVERY, BAD_STEPS, FIRST_BAD, ROWS, STEP, VALUE
from tests.processes import Asking

_WINDOW = 1000  # steps of one look at the layers


class Truth:
    """The log of one client; ``path`` as it was given to the client."""

    def __init__(self, path: Path, name: str = "run") -> None:
        self.run = frames.run_id("faults", name)
        self._path = path
        self.steps = _read(f"{path}.steps", STEP)
        self.values = _read(f"{path}.values", VALUE)

    @property
    def kept(self) -> NDArray[Any]:
        """The steps that the spool took."""
        kept: NDArray[Any] = self.steps[self.steps["taken"] == 1]
        return kept

    def check(self, server: Asking, *, whole: bool = True) -> int:
        """Every step is stored once, in order, bit for bit, or was told as dropped; gives how many are stored.

        ``whole``: the client ended by itself. One that was killed may have spooled a last frame that it had no time to
        log.
        """
        stored = server.raw_series(self.run, ["total_norm", "loss", "odd"])
        rows = [at for at, total in enumerate(stored["total_norm"]) if total is not None]
        steps = np.array([stored["step"][at] for at in rows], np.int64)
        kept = self.kept
        more = len(steps) - len(kept)
        assert more == 0 or (not whole and more == ROWS), f"{len(kept)} steps were spooled, {len(steps)} are stored"
        assert (np.diff(steps) > 0).all()
        np.testing.assert_array_equal(steps[: len(kept)], kept["step"])
        lost = int((self.steps["taken"] == 0).sum())
        assert _dropped(server, self.run) == lost and len(steps) - more + lost == len(self.steps)
        for name, field, kind in (("loss", "loss", "<f8"), ("total_norm", "total", "<f4")):
            values = np.array([stored[name][at] for at in rows[: len(kept)]], kind)
            assert_same_bits(values, kept[field].view(kind))
        self._check_values(stored, whole=whole)
        self._check_layers(server)
        return len(steps)

    def _check_values(self, stored: dict[str, list[Any]], *, whole: bool) -> None:
        pairs = [(step, value) for step, value in zip(stored["step"], stored["odd"], strict=True) if value is not None]
        kept = self.values[self.values["taken"] == 1]
        assert len(pairs) == len(kept) or (not whole and len(pairs) == len(kept) + 1)
        assert [step for step, _ in pairs[: len(kept)]] == kept["step"].tolist()
        assert_same_bits(np.array([value for _, value in pairs[: len(kept)]], "<f8"), kept["value"].view("<f8"))

    def _check_layers(self, server: Asking) -> None:
        kept = self.kept
        for at in range(0, len(kept), _WINDOW):
            some = kept[at : at + _WINDOW]
            first, last = int(some["step"][0]), int(some["step"][-1])
            path = f"/api/runs/{self.run}/layers?columns={last - first + 1}&first={first}&last={last}"
            found = server.get(path, headers={"Accept": "application/json"})
            rows = {column["first"]: row for row, column in enumerate(found["columns"])}
            chosen = [rows[step] for step in some["step"].tolist()]
            norms = some["norms"].view("<f4")
            bad = ~np.isfinite(norms)
            np.testing.assert_array_equal(np.array(found["nonfinite"])[chosen] > 0, bad)
            for field in ("min", "max"):
                assert_same_bits(np.array(found[field], "<f4")[chosen][~bad], norms[~bad])

    def check_alerts(self, server: Asking) -> None:
        """One alert for each episode that was spooled whole, and none twice."""
        # No episode spans two frames, so each was spooled whole or not at all.
        kept = self.kept["step"]
        expected = {(step, BAD_STEPS) for step in kept[(kept - FIRST_BAD) % BAD_EVERY == 0].tolist()}

        def told(found: dict[str, list[dict[str, Any]]]) -> list[tuple[int, int]]:
            mine = [a for a in found["alerts"] if a["run"] == self.run and a["rule"] == "nonfinite"]
            return sorted((alert["first_step"], alert["count"]) for alert in mine)

        path = f"/api/alerts?run={self.run}&limit=1000"
        found = told(server.await_json(path, lambda found: expected <= set(told(found))))
        assert len(found) == len({first for first, _ in found}) and len(found) - len(expected) in (0, 1)


def assert_same_bits(found: NDArray[Any], expected: NDArray[Any]) -> None:
    """Equal, with the sign of zero; of a NaN only that it is one, for JSON names no payloads."""
    both = np.isnan(found) & np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    kind = f"<u{found.itemsize}"
    np.testing.assert_array_equal(
        np.ascontiguousarray(found[~both]).view(kind), np.ascontiguousarray(expected[~both]).view(kind)
    )


def check_database(directory: Path) -> None:
    """SQLite's own word on its file; the server must have ended."""
    with closing(sqlite3.connect(directory / "gradwatch.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def _dropped(server: Asking, run: str) -> int:
    """Rows that tombstones of the run name."""
    events = server.get(f"/api/runs/{run}/events?kind=hook")["events"]
    return sum(int(event["text"].split(" ")[0]) for event in events if event["name"] == "dropped")


def _read(path: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The whole records of a log; a kill may have cut the last one."""
    data = Path(path).read_bytes() if Path(path).exists() else b""
    return np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
