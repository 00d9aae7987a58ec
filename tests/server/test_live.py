"""The live socket: snapshots, deltas, notices."""

from __future__ import annotations

import numpy as np
from gradwatch import frames
from gradwatch.frames import Frame, Kind

from .served import Served
from .stream import Socket, Writer, columns


def subscribe(socket: Socket, run: str | None, **wanted: object) -> Frame:
    """Subscribe; the snapshot that answers."""
    socket.say(type="subscribe", request=7, run=run, **wanted)
    return socket.until(Kind.SNAPSHOT, request=7)


def test_a_snapshot_then_deltas_that_replace_and_append(server: Served, writer: Writer) -> None:
    odd = np.array([0x7FF8000000001234, 0x7FF0000000000000, 0x8000000000000000, 1], np.uint64).view(np.float64)
    with server.ingest() as ingest, server.live() as viewer:
        ingest.store(writer, writer.opening() + writer.steps(np.arange(4), [1, 2, np.nan], loss=odd))
        snapshot = subscribe(viewer, writer.run, follow=True, layers=True)
        header, found = snapshot.header, columns(snapshot)
        assert (header["run"], header["width"], header["rows"], header["last_step"]) == (writer.run, 1, 4, 3)
        assert (header["first"], header["last"], header["layers"]) == (0, 3, 3)
        assert found["first"].tolist() == found["last"].tolist() == [0, 1, 2, 3]
        assert found["loss.last"].view(np.uint64).tolist() == odd.view(np.uint64).tolist()
        assert np.isnan(found["loss.min"][:2]).all() and found["loss.count"].tolist() == [0, 0, 1, 1]
        assert found["learning_rate.count"].tolist() == found["learning_rate.nonfinite"].tolist() == [0] * 4
        assert found["grad_norm.nonfinite"].tolist() == [[0, 0, 1]] * 4
        assert found["grad_norm.mean"][0, :2].tolist() == [1, 2] and np.isnan(found["grad_norm.max"][0, 2])
        ingest.store(writer, writer.steps([3, 4, 5], loss=2.0))
        delta = viewer.until(Kind.DELTA)
        assert columns(delta)["first"].tolist() == [3, 4, 5]
        assert columns(delta)["loss.mean"].tolist() == [2, 2, 2]


def test_a_growing_run_gets_a_new_snapshot_when_its_columns_widen(server: Served, writer: Writer) -> None:
    with server.ingest() as ingest, server.live() as viewer:
        ingest.store(writer, writer.opening() + writer.steps(np.arange(8)))
        assert subscribe(viewer, writer.run, columns=8).header["width"] == 1
        ingest.store(writer, writer.steps(np.arange(8, 12)))
        snapshot = viewer.until(Kind.SNAPSHOT)
        assert (snapshot.header["width"], snapshot.header["rows"]) == (2, 6)


def test_a_span_follows_the_newest_steps_with_a_steady_width(server: Served, writer: Writer) -> None:
    with server.ingest() as ingest, server.live() as viewer:
        ingest.store(writer, writer.opening() + writer.steps(np.arange(1000)))
        snapshot = subscribe(viewer, writer.run, follow=True, span=100, columns=30)
        assert snapshot.header["width"] == 4 and snapshot.header["rows"] <= 30
        assert snapshot.header["first"] == 900 and columns(snapshot)["first"][0] == 900
        for start in (1000, 1008, 1040):
            ingest.store(writer, writer.steps([start, start + 1]))
            found = columns(viewer.until(Kind.DELTA))
            assert found["first"].tolist() == [start // 4 * 4]


def test_a_fixed_range_hears_nothing_of_other_steps(server: Served, writer: Writer) -> None:
    with server.ingest() as ingest, server.live() as viewer:
        ingest.store(writer, writer.opening() + writer.steps(np.arange(100)))
        snapshot = subscribe(viewer, writer.run, first=10, last=19)
        assert columns(snapshot)["first"].tolist() == list(range(10, 20))
        ingest.store(writer, writer.steps([200]))
        ingest.store(writer, writer.steps([15], loss=9.0))
        found = columns(viewer.until(Kind.DELTA))["first"].tolist()
        assert found[0] == 15 and set(found) <= set(range(15, 20))


def test_a_big_snapshot_comes_in_parts_that_add_up(server: Served) -> None:
    writer = Writer([f"block.{n}.weight" for n in range(400)], run="big")
    norms = np.arange(400 * 300, dtype=np.float32).reshape(300, 400)
    with server.ingest() as ingest, server.live() as viewer:
        ingest.store(writer, writer.opening() + writer.steps(np.arange(300), norms))
        parts = [subscribe(viewer, writer.run, layers=True)]
        while len(parts) < parts[0].header["parts"]:
            parts.append(viewer.until(Kind.SNAPSHOT))
        assert len(parts) > 1 and all(part.size <= frames.MAX_FRAME for part in parts)
        assert [part.header["part"] for part in parts] == list(range(len(parts)))
        np.testing.assert_array_equal(np.concatenate([columns(part)["grad_norm.max"] for part in parts]), norms)


def test_notices_of_state_events_alerts_and_deletion(server: Served, writer: Writer) -> None:
    import httpx

    with server.ingest() as ingest, server.live() as viewer:
        ingest.store(writer, writer.opening() + writer.steps([0, 1]))
        subscribe(viewer, writer.run)
        ingest.store(writer, writer.event("checkpoint", "step one", 1))
        event = viewer.until(Kind.NOTICE, type="event").header["event"]
        assert (event["kind"], event["name"], event["text"], event["step"]) == ("user", "checkpoint", "step one", 1)
        ingest.store(writer, writer.steps([2], [1, np.nan, 1], loss=1.0))
        alert = viewer.until(Kind.NOTICE, type="alert").header["alert"]
        assert (alert["run"], alert["rule"], alert["first_step"], alert["state"]) == (
            writer.run,
            "nonfinite",
            2,
            "open",
        )
        ingest.store(writer, writer.finish("failed", "out of memory"))
        while (run := viewer.until(Kind.NOTICE, type="run").header["run"])["state"] == "running":
            assert "sparkline" not in run
        assert (run["state"], run["reason"], run["last_step"]) == ("failed", "out of memory", 2)
        httpx.delete(f"{server.url}/api/runs/{writer.run}")
        assert viewer.until(Kind.NOTICE, type="deleted").header["run"] == writer.run


def test_the_run_list_hears_of_every_run(server: Served, writer: Writer) -> None:
    with server.ingest() as ingest, server.live() as viewer:
        viewer.say(type="subscribe", request=1, run=None)
        viewer.say(type="nonsense")
        assert "subscribe" in viewer.until(Kind.NOTICE, type="error").header["message"]
        ingest.store(writer, writer.opening() + writer.steps([0]))
        while viewer.until(Kind.NOTICE, type="run").header["run"]["id"] != writer.run:
            pass


def test_a_run_that_is_not_there_yet_is_shown_when_it_comes(server: Served, writer: Writer) -> None:
    with server.ingest() as ingest, server.live() as viewer:
        viewer.say(type="subscribe", request=3, run=writer.run)
        assert "no such run" in viewer.until(Kind.NOTICE, type="error").header["message"]
        ingest.store(writer, writer.opening() + writer.steps([0]))
        while viewer.until(Kind.SNAPSHOT, request=3).header["rows"] != 1:
            pass


def test_wrong_subscriptions_are_answered_and_the_socket_stays(server: Served, writer: Writer) -> None:
    with server.ingest() as ingest, server.live() as viewer:
        ingest.store(writer, writer.opening())
        wrong = ["{", "[]", "[" * 100_000, '{"type": "subscribe", "run": 5}']
        wrong += [f'{{"type": "subscribe", "run": "x", "{field}": "many"}}' for field in ("first", "columns", "follow")]
        wrong += ['{"type": "subscribe", "first": 5, "last": 4}', '{"type": "subscribe", "span": 0, "follow": true}']
        for text in wrong:
            viewer.send(text)
            assert viewer.until(Kind.NOTICE, type="error").header["message"]
        viewer.send(b"\0\1")
        assert viewer.until(Kind.NOTICE, type="error")
        assert subscribe(viewer, writer.run).header["rows"] == 0


def test_a_new_attempt_brings_a_new_snapshot(server: Served, writer: Writer) -> None:
    again = Writer(run=writer.said["run"], start_step=2)
    with server.ingest() as ingest, server.live() as viewer:
        ingest.store(writer, writer.opening() + writer.steps(np.arange(5), loss=1.0))
        subscribe(viewer, writer.run)
        ingest.store(again, again.opening())
        while (snapshot := viewer.until(Kind.SNAPSHOT)).header["last_step"] != 1:
            pass
        assert columns(snapshot)["first"].tolist() == [0, 1]
