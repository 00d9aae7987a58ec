"""The loss landscape as the outside gets it, from frames that came over a real socket."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradwatch import frames
from gradwatch_server.api import landscape
from gradwatch_server.landscape.tape import ALPHAS

from ..served import Served
from ..stream import Writer

NAN, INF = float("nan"), float("inf")
NOTHING: dict[str, Any] = {
    "tape": {"alpha": list(ALPHAS), "every": 1, "count": 0, "probes": []},
    "line": None,
    "verdict": {"unsupported": None, "events": [], "overall": None},
    "surfaces": [],
    "surface": None,
    "trajectory": None,
    "cost": {"seconds": None, "share": None},
}
SUMMARY = {"base": 2.0, "taken": 1.5, "best_alpha": 1.25, "critical_low": 1.5, "critical_high": 1.6}
SUMMARY |= {"learning_rate": 0.1, "stability_threshold": 38.0, "update_norm": 0.5, "spent": 0.5, "elapsed": 100.0}
EXTENT = {"low_u": -1, "high_u": 1, "low_v": -2, "high_v": 2, "unit_u": 0.5, "unit_v": 0.25, "base": 2.0}


def found(server: Served, writer: Writer, query: str = "") -> Any:
    return server.get(f"/api/runs/{writer.run}/landscape?{query}")


def send(server: Served, writer: Writer, *data: bytes) -> None:
    with server.ingest() as socket:
        socket.store(writer, b"".join(data))


def begun(writer: Writer, steps: int = 100) -> bytes:
    return writer.opening() + writer.steps(np.arange(steps))


def line(writer: Writer, probe: int, step: int, loss: float = 1.0) -> bytes:
    points = writer.landscape("line points", probe, step, {"alpha": ALPHAS, "loss": loss}, {"mode": "eval"})
    return points + writer.landscape("line summary", probe, step, SUMMARY)


def test_a_run_that_was_never_probed_and_one_without_a_step(server: Served, writer: Writer) -> None:
    send(server, writer, writer.hello())
    assert found(server, writer) == NOTHING
    send(server, writer, writer.layer_table() + writer.steps(np.arange(9)))
    assert found(server, writer) == NOTHING


def test_the_tape_and_the_newest_line(server: Served, writer: Writer) -> None:
    points = {"alpha": [1, 0, 4, 0.5, 1.5625], "loss": [1.5, 2, INF, NAN, 3]}
    send(server, writer, begun(writer), line(writer, 0, 10), writer.landscape("line summary", 1, 20, SUMMARY))
    send(server, writer, writer.landscape("line points", 1, 20, points, {"batches": 4, "mode": "train"}))
    answer = found(server, writer)
    assert (answer["tape"]["every"], answer["tape"]["count"]) == (1, 2)
    first, second = answer["tape"]["probes"]
    assert first["loss"] == [1.0] * 13 and (first["probe"], first["step"], first["attempt"]) == (0, 10, 1)
    assert second["loss"] == [None, None, 2, None, "NaN", None, 1.5, None, None, None, None, None, "Infinity"]
    wanted = {key: SUMMARY[key] for key in SUMMARY.keys() - {"spent", "elapsed"}}
    assert second.items() >= (wanted | {"done": True, "critical_alpha": 1.55}).items()
    assert second["sharpness"] == pytest.approx(2 / 0.155)
    assert answer["line"] == {
        "attempt": 1,
        "probe": 1,
        "step": 20,
        "about": {"batches": 4, "mode": "train"},
        "alpha": [0, 0.5, 1, 1.5625, 4],
        "loss": [2, "NaN", 1.5, 3, "Infinity"],
    }
    assert answer["cost"] == {"seconds": 0.5, "share": 0.005}


def test_a_probe_at_work_shows_what_there_is(server: Served, writer: Writer) -> None:
    send(server, writer, begun(writer), writer.landscape("line points", 0, 10, {"alpha": [0, 1], "loss": [2, 1.5]}))
    (probe,) = found(server, writer)["tape"]["probes"]
    assert (probe["done"], probe["base"], probe["taken"]) == (False, 2, 1.5)
    assert all(probe[name] is None for name in ("critical_low", "sharpness", "best_alpha", "learning_rate"))


def test_many_probes_are_thinned_evenly_within_the_columns_and_what_may_be_read(
    server: Served, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(server, writer, begun(writer), *(line(writer, n, n, loss=n) for n in range(100)))
    answer = found(server, writer, "columns=30")
    shown = [probe["step"] for probe in answer["tape"]["probes"]]
    assert (shown, answer["tape"]["every"], answer["tape"]["count"]) == ([*range(0, 100, 4), 99], 4, 100)
    assert answer["line"]["step"] == 99
    part = found(server, writer, "columns=10&first=22&last=70")["tape"]
    assert [probe["step"] for probe in part["probes"]] == [24, 32, 40, 48, 56, 64, 70] and part["count"] == 49
    monkeypatch.setattr(landscape, "MOST_LINE_FRAMES", 60)
    few = found(server, writer)["tape"]
    assert [probe["step"] for probe in few["probes"]] == [*range(0, 100, 4), 99] and few["every"] == 4
    assert all(probe["done"] and probe["loss"] == [probe["step"]] * 13 for probe in few["probes"])


def test_the_verdict_over_clips(server: Served, writer: Writer) -> None:
    send(server, writer, begun(writer))
    send(server, writer, writer.landscape("verdict unsupported", 0, 1, about={"reason": "Muon has no closed form"}))
    answer = found(server, writer)["verdict"]
    assert answer == {"unsupported": "Muon has no closed form", "events": [], "overall": None}
    for probe, raw in enumerate(([2.0, 2.1, 2.2], [INF, NAN, INF], [0.5], [2.0, 2.2, 2.1], [1.5] * 3, [1.6] * 3), 1):
        held = writer.landscape("verdict points", probe, 10 * probe, {"base": 3.0, "clipped": 1.0, "raw": raw})
        send(server, writer, held)
    answer = found(server, writer)["verdict"]
    assert answer["unsupported"] is None
    first, lost, alone = answer["events"][:3]
    assert first["difference"] == pytest.approx(1.1) and first["standard_error"] == pytest.approx(0.1 / math.sqrt(3))
    assert (first["step"], first["batches"], first["outcome"]) == (10, 3, "helped")
    assert (lost["difference"], lost["standard_error"], lost["outcome"]) == ("Infinity", None, "helped")
    assert (alone["standard_error"], alone["outcome"]) == (None, "inconclusive")
    overall = answer["overall"]
    assert overall["mean"] == pytest.approx((1.1 - 0.5 + 1.1 + 0.5 + 0.6) / 5)
    counts = {name: overall[name] for name in ("count", "helped", "hurt", "inconclusive", "nonfinite", "every")}
    assert counts == {"count": 6, "helped": 5, "hurt": 0, "inconclusive": 1, "nonfinite": 1, "every": 1}
    assert overall["outcome"] == "inconclusive"
    looking_closer = found(server, writer, "first=20&last=35")  # is not to judge the run by fewer clips
    assert looking_closer["verdict"] == answer


def test_many_verdicts_are_judged_together_and_the_newest_listed(
    server: Served, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(server, writer, begun(writer, 300))
    held = {"clipped": [1.0, 1.0], "raw": [1.5, 1.5001]}
    send(server, writer, *(writer.landscape("verdict points", n, n, held) for n in range(250)))
    answer = found(server, writer)["verdict"]
    assert len(answer["events"]) == 200 and answer["events"][0]["step"] == 50 and answer["overall"]["count"] == 250
    assert answer["overall"]["outcome"] == "helped"
    monkeypatch.setattr(landscape, "MOST_VERDICTS", 100)
    answer = found(server, writer)["verdict"]
    assert [event["step"] for event in answer["events"]] == [*range(0, 230, 4), *range(230, 250)]
    assert (answer["overall"]["every"], answer["overall"]["count"]) == (4, 64), "all along the run with equal weight"


def surface_frames(writer: Writer, probe: int, step: int, cells: int, **about: Any) -> bytes:
    about = {"size": 5, "plane": "update", "levels": 5, "request": "", **about}
    points = [
        writer.landscape(
            "surface points", probe, step, {"i": [n % 5], "j": [n // 5], "loss": [n], "seconds": 0.5}, about
        )
        for n in range(cells)
    ]
    return writer.landscape("surface plane", probe, step, EXTENT, about) + b"".join(points)


def test_a_surface_grows_cell_by_cell(server: Served, writer: Writer) -> None:
    send(server, writer, begun(writer), surface_frames(writer, 4, 30, 7, request="abc", seed=3))
    send(server, writer, writer.landscape("surface points", 4, 30, {"i": [2], "j": [1], "loss": [NAN]}, {"size": 5}))
    send(server, writer, writer.landscape("surface path", 4, 30, {"step": [30, 31], "u": [0, NAN], "loss": [2, NAN]}))
    answer = found(server, writer)
    (listed,) = answer["surfaces"]
    wanted = {"probe": 4, "step": 30, "attempt": 1, "plane": "update", "levels": 5, "computed": 8, "request": "abc"}
    assert listed == wanted
    shown = answer["surface"]
    assert shown["loss"][0] == [0, 1, 2, 3, 4] and shown["loss"][1] == [5, 6, "NaN", None, None]
    assert shown["u"] == [-1, -0.5, 0, 0.5, 1] and shown["v"] == [-2, -1, 0, 1, 2]
    numbers = {name: shown[name] for name in ("computed", "nonfinite", "unit_u", "unit_v", "base", "seconds")}
    assert numbers == {"computed": 8, "nonfinite": 1, "unit_u": 0.5, "unit_v": 0.25, "base": 2, "seconds": 3.5}
    assert shown["about"]["seed"] == 3
    assert shown["path"] == {"step": [30, 31], "u": [0, "NaN"], "v": [0, 0], "off": [0, 0], "loss": [2, "NaN"]}


def test_the_surface_asked_for_or_else_the_newest(
    server: Served, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two of them are around the same step, as when two were asked for at once.
    some = [(1, 10, 3), (2, 40, 4), (3, 40, 5), (4, 70, 0)]
    send(server, writer, begun(writer), *(surface_frames(writer, *one) for one in some))
    answer = found(server, writer)
    listed = [(s["probe"], s["step"], s["computed"]) for s in answer["surfaces"]]
    assert listed == some and answer["surface"]["probe"] == 4 and answer["surface"]["computed"] == 0
    for probe, _, cells in some:
        shown = found(server, writer, f"surface={probe}")["surface"]
        assert (shown["probe"], shown["computed"]) == (probe, cells)
    assert found(server, writer, "surface=9")["surface"] is None
    assert found(server, writer, "last=50")["surface"]["probe"] == 4
    # Shown is the newest that there is something to see of.
    monkeypatch.setattr(landscape, "COARSEST", 4)
    assert found(server, writer)["surface"]["probe"] == 3
    monkeypatch.setattr(landscape, "MOST_SURFACES", 2)
    answer = found(server, writer, "surface=1")
    assert [s["step"] for s in answer["surfaces"]] == [40, 40, 70] and answer["surface"]["computed"] == 3


def test_the_map_of_the_path(server: Served, writer: Writer) -> None:
    chance = np.random.default_rng(4)
    sketch = np.cumsum(chance.normal(size=(20, 64)), axis=0).astype("f4")
    send(server, writer, begun(writer, 200))
    for start in range(0, 20, 5):
        step = np.arange(start, start + 5) * 10
        rows = {"step": step, "loss": step / 2, "sketch": sketch[start : start + 5]}
        send(
            server, writer, writer.landscape("trajectory points", 7 + start, int(step[-1]), rows, {"k": 64, "seed": 5})
        )
    answer = found(server, writer)["trajectory"]
    assert answer["step"] == list(range(0, 200, 10)) and answer["loss"] == [n / 2 for n in range(0, 200, 10)]
    assert (answer["snapshots"], answer["every"], answer["nonfinite"]) == (20, 1, 0)
    centred = sketch.astype(float) - sketch.mean(axis=0, dtype=float)
    lengths = np.linalg.svd(centred, compute_uv=False) ** 2
    np.testing.assert_allclose(answer["explained"], lengths[:2] / lengths.sum())
    drawn = np.array([answer["x"], answer["y"], answer["off"]])
    np.testing.assert_allclose((drawn**2).sum(axis=0), (centred**2).sum(axis=1))
    assert answer["random_walk"] == pytest.approx([6 / 399 / 4 / math.sin(math.pi * k / 40) ** 2 for k in (1, 2)])
    assert answer["about"] == {"k": 64, "seed": 5}
    assert found(server, writer, "first=45&last=95")["trajectory"] == answer


def test_a_long_path_is_thinned(server: Served, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    send(server, writer, begun(writer))
    one = "trajectory points"
    send(server, writer, *(writer.landscape(one, n, n, {"step": [n], "sketch": [[n, 0.0]]}) for n in range(100)))
    monkeypatch.setattr(landscape, "MOST_SNAPSHOTS", 30)
    answer = found(server, writer)["trajectory"]
    assert answer["step"] == [*range(0, 100, 4), 99] and (answer["snapshots"], answer["every"]) == (100, 4)
    assert len(answer["random_walk"]) == 2 and answer["explained"] == pytest.approx([1, 0])


def everything(writer: Writer) -> list[bytes]:
    """Every part, each thing said twice, the second time otherwise."""
    sent = []
    for turn in (0.0, 1.0):
        sent += [line(writer, 0, 5, loss=turn), surface_frames(writer, 1, 6, 25)]
        sent += [writer.landscape("surface path", 1, 6, {"step": [1, 2, 3], "u": turn})]
        sent += [writer.landscape("surface points", 1, 6, {"i": [1], "j": [1], "loss": [turn + 50]}, {"size": 5})]
        sent += [writer.landscape("verdict points", 2, 7, {"raw": [turn, turn + 1]})]
        sent += [writer.landscape("trajectory points", 3, 8, {"step": [3, 5, 8], "sketch": np.eye(3) * (turn + 1)})]
    return sent


def test_the_answer_is_the_same_in_any_order_of_arrival_with_duplicates_and_after_a_restart(tmp_path: Path) -> None:
    writer = Writer()
    opening = begun(writer)
    sent = everything(writer)
    answers = []
    for turn in range(3):
        mixed = sent[:] if not turn else random.Random(turn).sample(sent + sent[::2], len(sent) * 3 // 2)
        with Served(tmp_path / str(turn)) as served, served.ingest() as socket:
            socket.send(opening + b"".join(mixed[:7]))
            socket.until(frames.Kind.ACK)
        with Served(tmp_path / str(turn)) as served:
            send(served, writer, opening, b"".join(mixed[3:] + mixed[:3]))
            answers.append(json.dumps(found(served, writer)))
            assert found(served, writer)["surface"]["loss"][1][1] == 51
    assert answers[0] == answers[1] == answers[2]


def test_attempts_are_chained_and_can_be_looked_at_alone(server: Served, writer: Writer) -> None:
    again = Writer(run=writer.said["run"], start_step=50)
    send(server, writer, begun(writer), line(writer, 0, 10), line(writer, 1, 60), surface_frames(writer, 2, 61, 2))
    send(server, again, again.opening() + again.steps([50, 51]), line(again, 0, 52), surface_frames(again, 2, 53, 1))
    answer = found(server, writer)
    assert [(p["attempt"], p["probe"], p["step"]) for p in answer["tape"]["probes"]] == [(1, 0, 10), (2, 0, 52)]
    assert [(s["attempt"], s["step"]) for s in answer["surfaces"]] == [(2, 53)]
    assert answer["cost"] == {"seconds": 1.0, "share": 0.005}
    old = found(server, writer, "attempt=1")
    assert [p["step"] for p in old["tape"]["probes"]] == [10, 60] and old["surface"]["step"] == 61
    for query in ("attempt=3", "rank=4", "columns=0", "columns=9999", "surface=-1", "surface=x", "first=5&last=4"):
        refused = httpx.get(f"{server.url}/api/runs/{writer.run}/landscape?{query}")
        assert refused.status_code == 422 and isinstance(refused.json()["detail"], str), query


def test_a_probe_that_comes_before_its_step_is_shown_and_its_viewers_hear_of_it(server: Served, writer: Writer) -> None:
    with server.ingest() as socket, server.live() as viewer, server.live() as other:
        socket.store(writer, begun(writer, 10))
        viewer.say(type="subscribe", request=1, run=writer.run)
        other.say(type="subscribe", request=1, run=None)
        viewer.until(frames.Kind.SNAPSHOT)
        socket.store(writer, line(writer, 0, 25))
        notice = viewer.until(frames.Kind.NOTICE, type="landscape").header
        assert (notice["run"], notice["landscape"]) == (writer.run, True)
        assert [p["step"] for p in found(server, writer)["tape"]["probes"]] == [25]
        socket.store(writer, writer.event("later"))
        viewer.until(frames.Kind.NOTICE, type="event")
        httpx.delete(f"{server.url}/api/runs/{writer.run}")
        while (heard := other.until(frames.Kind.NOTICE).header)["type"] != "deleted":
            assert heard["type"] != "landscape", "the list of runs does not draw it"


def test_a_frame_without_sense_is_refused_by_name(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, begun(writer))
        socket.send(writer.landscape("line points", 0, 3, {"alpha": [NAN]}))
        refusal = socket.until(frames.Kind.REFUSE).header
        assert (refusal["code"], refusal["seq"]) == ("field", writer.seq - 1) and "'alpha'" in refusal["message"]
