"""Rules over stored steps: once, in order, and named."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradwatch.frames import Kind
from gradwatch_server import alerts

from .served import Served
from .stream import Writer

NAN = float("nan")
GOOD = [1.0, 1.0, 1.0]
BAD = [NAN, 1.0, 1.0]


def test_a_nan_in_one_layers_backward_is_named_with_its_step(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.send(writer.hello() + writer.layer_table(orders=[2, 0, 1]))
        norms = np.ones((10, 3))
        norms[6, [1, 2]] = NAN
        socket.store(writer, writer.steps(np.arange(10), norms, loss=1.0))
    found = server.wait(f"/api/alerts?run={writer.run}", lambda found: found["alerts"])["alerts"]
    (alert,) = found
    assert alert["layers"] == ["b.weight", "a.bias"]
    assert (alert["rule"], alert["severity"], alert["first_step"], alert["count"]) == ("nonfinite", "critical", 6, 1)
    assert "b.weight" in alert["title"] and "step 6" in alert["title"]
    events = server.get(f"/api/runs/{writer.run}/events?kind=nonfinite")["events"]
    assert [event["step"] for event in events] == [6]
    assert server.get(f"/api/runs/{writer.run}")["alerts"] == {"open": 1}
    acked = httpx.post(f"{server.url}/api/alerts/{alert['id']}/ack").json()
    assert acked["state"] == "acknowledged"
    assert server.get(f"/api/runs/{writer.run}")["alerts"] == {"open": 0}
    assert server.get(f"/api/alerts?run={writer.run}&state=open") == {"alerts": []}


def test_ranks_that_see_the_same_episode_share_one_alert(server: Served, writer: Writer) -> None:
    other = Writer(run=writer.said["run"], launch=writer.said["launch"], rank=1)
    with server.ingest() as socket:
        for one in (writer, other):
            socket.store(one, one.opening() + one.steps([0, 1, 2], [GOOD, BAD, BAD], loss=1.0))
    time.sleep(0.3)
    found = server.wait(f"/api/alerts?run={writer.run}", lambda found: found["alerts"])["alerts"]
    assert [(alert["first_step"], alert["count"]) for alert in found] == [(1, 2)]


def test_a_late_frame_is_judged_before_its_successors(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening())
        held = writer.steps([0, 1], BAD, loss=1.0)
        socket.send(writer.steps([2, 3], BAD, loss=1.0))
        time.sleep(0.3)
        assert server.get(f"/api/alerts?run={writer.run}")["alerts"] == []
        socket.store(writer, held)
    (alert,) = server.wait(f"/api/alerts?run={writer.run}", lambda found: found["alerts"])["alerts"]
    assert (alert["first_step"], alert["last_step"], alert["count"]) == (0, 3, 4)


def test_rules_go_on_after_a_restart_and_raise_nothing_twice(tmp_path: Path) -> None:
    writer = Writer()
    with Served(tmp_path) as served, served.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps([0, 1], [GOOD, BAD], loss=1.0))
        served.wait("/api/alerts", lambda found: found["alerts"])
    with Served(tmp_path) as served, served.ingest() as socket:
        socket.store(writer, writer.steps([2, 3, 4], [BAD, GOOD, [1.0, NAN, 1.0]], loss=1.0))
        served.wait("/api/alerts", lambda found: len(found["alerts"]) == 2)
        found = served.get("/api/alerts")["alerts"]
        assert [(a["first_step"], a["last_step"], a["count"]) for a in found] == [(4, 4, 1), (1, 2, 2)]


def test_a_probe_that_changed_the_training_raises_an_alert_once(tmp_path: Path) -> None:
    writer = Writer()
    moved = writer.opening() + writer.steps([0, 1], loss=1.0) + writer.event("probe_tripwire", "a buffer moved", 1)
    with Served(tmp_path) as served, served.ingest() as socket:
        socket.store(writer, moved + writer.event("probe", "off", 1) + writer.steps([2], [BAD], loss=1.0))
        served.wait("/api/alerts", lambda found: len(found["alerts"]) == 2)
        kinds = {event["name"]: event["kind"] for event in served.get(f"/api/runs/{writer.run}/events")["events"]}
        assert kinds.items() >= {("probe_tripwire", "hook"), ("probe", "hook")}
    with Served(tmp_path) as served, served.ingest() as socket:
        socket.store(writer, moved + writer.steps([3], loss=1.0))
        time.sleep(0.3)
        alerts = served.get("/api/alerts")["alerts"]
        assert {(a["rule"], a["severity"], a["first_step"], a["count"]) for a in alerts} == {
            ("probe_tripwire", "critical", 1, 1),
            ("nonfinite", "critical", 2, 1),
        }
        assert any("a buffer moved" in alert["text"] for alert in alerts) and len(alerts) == 2


def test_rules_that_had_no_time_before_the_end_are_run_at_the_next_start(tmp_path: Path) -> None:
    def reached(boundary: str) -> None:
        if boundary == "before_rules":
            raise RuntimeError("ended here")

    writer = Writer()
    with Served(tmp_path, reached) as served, served.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps([0], BAD, loss=1.0))
        time.sleep(0.2)
        assert served.get("/api/alerts")["alerts"] == []
    with Served(tmp_path) as served:
        served.wait("/api/alerts", lambda found: len(found["alerts"]) == 1)


def test_frames_that_never_come_are_waited_for_and_then_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "_HOLE_SECONDS", 1.5)
    writer = Writer()
    opening = writer.opening()
    writer.seq = 100  # the database before this one had what came until here
    with Served(tmp_path) as served, served.ingest() as socket:
        socket.send(opening + writer.steps(np.arange(300), loss=1.0) + writer.steps([300], BAD, loss=1.0))
        socket.until(Kind.ACK, through=1, ranges=[[100, 101]])
        time.sleep(0.5)
        assert served.get("/api/alerts")["alerts"] == []
        (alert,) = served.wait("/api/alerts", lambda found: found["alerts"])["alerts"]
        assert alert["first_step"] == 300
        time.sleep(1)
    with sqlite3.connect(tmp_path / "gradwatch.db") as connection:
        assert connection.execute("SELECT count(*) FROM tiles").fetchone()[0], "what lies behind the hole is not sealed"
