"""A run, read back from a server: its series, layers, events and alerts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, overload

from gradwatch import pages
from gradwatch.download import Format, save
from gradwatch.fetch import Fetcher
from gradwatch.measurements import LayerColumns, Layers, Records, Series, SeriesColumns

Metric = Literal["grad_norm", "weight_norm", "update_ratio", "layer_coefficient"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run."""

    run: str
    attempt: int
    step: int
    time: datetime
    kind: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a rule found. ``layers``: those concerned, the first to go wrong first."""

    id: int
    run: str
    attempt: int
    rule: str
    severity: str
    title: str
    text: str
    count: int
    first_step: int
    last_step: int
    state: str
    layers: list[Any]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Run:
    """A run as it was when it was asked for; what its methods read is what is there now."""

    id: str
    project: str
    name: str
    state: str
    reason: str | None
    attempt: int
    last_step: int | None
    total_steps: int | None
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    group: str | None
    tags: list[str]
    ranks: list[int]
    fetcher: Fetcher = field(repr=False, compare=False)

    @classmethod
    def of(cls, fetcher: Fetcher, said: Mapping[str, Any]) -> Run:
        """From what the server says of it."""
        run = timed(said, "started_at", "updated_at", "ended_at")
        return cls(fetcher=fetcher, **{name: run[name] for name in cls.__dataclass_fields__ if name != "fetcher"})

    @cached_property
    def details(self) -> dict[str, Any]:
        """All that the server knows of the run: config, clip, layers, modules, attempts, host ..."""
        return cast(dict[str, Any], self.fetcher.json(f"api/runs/{self.id}"))

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that ``watch`` was given."""
        return cast(dict[str, Any], self.details["config"])

    @property
    def layer_names(self) -> list[str]:
        return [layer["name"] for layer in self.details["layers"]]

    @overload
    def series(
        self, names: str | Iterable[str] | None = None, first: int | None = None, last: int | None = None,
        columns: None = None, *, attempt: int | None = None, rank: int | None = None,
    ) -> Series: ...  # fmt: skip

    @overload
    def series(
        self, names: str | Iterable[str] | None = None, first: int | None = None, last: int | None = None,
        *, columns: int, attempt: int | None = None, rank: int | None = None,
    ) -> SeriesColumns: ...  # fmt: skip

    def series(
        self,
        names: str | Iterable[str] | None = None,
        first: int | None = None,
        last: int | None = None,
        columns: int | None = None,
        *,
        attempt: int | None = None,
        rank: int | None = None,
    ) -> Series | SeriesColumns:
        """Scalar series (None: all) from step ``first`` to ``last``: every step, or reduced to at most ``columns``."""
        wanted = [names] if isinstance(names, str) else None if names is None else list(names)
        query = {"names": wanted, "last": last, "attempt": attempt, "rank": rank}
        path = f"api/runs/{self.id}/series"
        if columns is None:
            return pages.read_series(self.fetcher, path, first, query)
        return pages.series_columns(self.fetcher.json(path, first=first, columns=columns, **query))

    @overload
    def layers(
        self, metric: Metric = "grad_norm", first: int | None = None, last: int | None = None, columns: int = 1000,
        match: str | None = None, by: Literal["layer", "module"] = "layer", *, attempt: int | None = None,
        rank: int | None = None,
    ) -> LayerColumns: ...  # fmt: skip

    @overload
    def layers(
        self, metric: Literal["grad_norm"] = "grad_norm", first: int | None = None, last: int | None = None,
        *, columns: None, match: str | None = None, attempt: int | None = None, rank: int | None = None,
    ) -> Layers: ...  # fmt: skip

    def layers(
        self,
        metric: Metric = "grad_norm",
        first: int | None = None,
        last: int | None = None,
        columns: int | None = 1000,
        match: str | None = None,
        by: Literal["layer", "module"] = "layer",
        *,
        attempt: int | None = None,
        rank: int | None = None,
    ) -> LayerColumns | Layers:
        """A metric of the layers that the glob ``match`` names, reduced to at most ``columns`` columns of steps.

        ``columns=None``: every step by itself, in memory; that is what ``grad_norm`` by layer has. For more than fits
        there, ``export``. ``by="module"``: the norms of whole modules.
        """
        query = {"metric": metric, "match": match, "by": by, "last": last, "attempt": attempt, "rank": rank}
        path = f"api/runs/{self.id}/layers"
        if columns is None:
            return pages.read_layers(self.fetcher, path, first, query, self._names(match, by))
        found, count = pages.layer_columns(self.fetcher.frames(path, first=first, columns=columns, **query))
        return replace(found, names=self._names(match, by, count))

    def events(self, kind: str | None = None) -> Records[Event]:
        """The newest 10,000 events in step order: spike, nonfinite, restart, control, user, hook."""
        found = self.fetcher.json(f"api/runs/{self.id}/events", kind=kind, limit=10_000)["events"]
        return Records(Event(**timed(event, "time")) for event in found)

    def alerts(self, state: Literal["open", "acknowledged"] | None = None) -> Records[Alert]:
        """The newest 1,000 alerts, newest first."""
        return alerts(self.fetcher, self.id, state)

    def export(
        self,
        path: str | Path,
        format: Format = "parquet",
        *,
        match: str | None = None,
        first: int | None = None,
        last: int | None = None,
        force: bool = False,
    ) -> Path:
        """Every step and layer as a file, which is whole or not there. Needs no more memory than a part of it."""
        file = Path(path)
        save(self.fetcher, self.id, file, format, force=force, tell=_silent, match=match, first=first, last=last)
        return file

    def _names(self, match: str | None, by: str, count: int | None = None) -> list[str]:
        """The names of the first ``count`` layers that an answer is about; None: of those that there are now."""
        names = [] if count is None else self._matching(match, by)
        if count is None or len(names) < count:
            self.__dict__.pop("details", None)  # layers may have come since
            names = self._matching(match, by)
        return names[:count]

    def _matching(self, match: str | None, by: str) -> list[str]:
        known = [one["name"] for one in self.details[f"{by}s"]]
        return [name for name in known if match is None or fnmatchcase(name, match)]


def alerts(fetcher: Fetcher, run: str | None, state: str | None) -> Records[Alert]:
    """The newest 1,000 alerts of a run or of all, newest first."""
    found = fetcher.json("api/alerts", run=run, state=state, limit=1000)["alerts"]
    return Records(Alert(**timed(alert, "created_at", "updated_at")) for alert in found)


def timed(said: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """``said`` with the seconds since 1970 under ``names`` as times in UTC."""
    times = {name: None if said[name] is None else datetime.fromtimestamp(said[name], UTC) for name in names}
    return {**said, **times}


def _silent(size: int, expected: int) -> None:
    return None
