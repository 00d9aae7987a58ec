"""Commands to trainings: down the right socket, once, written down; and refused with a reason."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from gradwatch.frames import Kind

from ..served import Served
from ..stream import Socket, Writer

WANTED = {"command": "probe_landscape", "plane": "update", "levels": 9, "seed": 7}


@pytest.fixture
def obedient(writer: Writer) -> Writer:
    """A writer whose script allows all commands."""
    writer.said |= {"control": True, "commands": ["set_threshold", "stop", "checkpoint", "probe_landscape"]}
    return writer


def ask(server: Served, run: str, body: Any = None, **options: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/api/runs/{run}/control", json=WANTED if body is None else body, **options)


def refused(server: Served, run: str, status: int, word: str, body: Any = None) -> None:
    answer = ask(server, run, body)
    assert answer.status_code == status, answer.text
    assert word in answer.json()["detail"] and len(answer.json()["detail"]) > 5, answer.text


def orders(socket: Socket, writer: Writer) -> list[dict[str, Any]]:
    """The commands that have come over a socket so far."""
    writer_seq = writer.seq
    socket.send(writer.event("mark"))
    found = []
    while (frame := socket.next()).kind is not Kind.ACK or frame.header["through"] < writer_seq:
        if frame.kind is Kind.CONTROL:
            found.append(frame.header)
    return found


def test_a_command_reaches_the_training_and_is_written_down(server: Served, obedient: Writer) -> None:
    with server.ingest() as socket, server.live() as viewer:
        socket.store(obedient, obedient.opening() + obedient.steps(np.arange(6)))
        assert server.get(f"/api/runs/{obedient.run}")["control"] is True
        viewer.say(type="subscribe", request=1, run=obedient.run)
        viewer.until(Kind.SNAPSHOT)
        answer = ask(server, obedient.run)
        assert answer.status_code == 202 and answer.json().keys() == {"id"}
        frame = socket.until(Kind.CONTROL)
        number = answer.json()["id"]
        assert frame.header == {"writer": obedient.key, "id": number, "by": "127.0.0.1", **WANTED}
        assert len(frame.body) == 0
        assert int(number, 16) >= 0
        heard = viewer.until(Kind.NOTICE, type="event").header["event"]
        (event,) = server.get(f"/api/runs/{obedient.run}/events?kind=control")["events"]
        assert heard == event and (event["name"], event["step"], event["attempt"]) == ("probe_landscape", 5, 1)
        assert all(word in event["text"] for word in ("update", "9", "seed 7", "127.0.0.1"))
        plain = ask(server, obedient.run, {"command": "probe_landscape", "plane": "random"})
        wanted = {"id": plain.json()["id"], "plane": "random", "levels": 17, "seed": 0}
        assert socket.until(Kind.CONTROL).header.items() >= wanted.items() and wanted["id"] != number


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"command": "set_threshold", "value": 0.5}, "threshold 0.5"),
        ({"command": "set_threshold", "value": 3}, "threshold 3"),
        ({"command": "stop"}, "the end of the training"),
        ({"command": "checkpoint"}, "a checkpoint"),
    ],
)
def test_every_command_goes_as_it_came_and_is_accounted_for(
    server: Served, obedient: Writer, body: dict[str, Any], words: str
) -> None:
    with server.ingest() as socket:
        socket.store(obedient, obedient.opening() + obedient.steps(np.arange(3)))
        assert server.get(f"/api/runs/{obedient.run}")["commands"] == obedient.said["commands"]
        number = ask(server, obedient.run, body).json()["id"]
        said = socket.until(Kind.CONTROL).header
        assert said == {"writer": obedient.key, "id": number, "by": "127.0.0.1", **body}
        assert type(said.get("value")) in (float, type(None))
        (event,) = server.get(f"/api/runs/{obedient.run}/events?kind=control")["events"]
        assert (event["name"], event["step"]) == (body["command"], 2)
        assert event["text"] == f"{words}, asked for from 127.0.0.1"
        # What became of it, in the words of the hook, stands beside it.
        done = f"{body['command']}: done"
        socket.store(obedient, obedient.event("control", done, step=2))
        both = server.get(f"/api/runs/{obedient.run}/events?kind=control")["events"]
        assert [one["text"] for one in both] == [event["text"], done]


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        ({"command": "set_threshold", "value": 0.5}, "clip=1.0"),
        ({"command": "stop"}, "upgrade"),
        ({"command": "checkpoint"}, "on_checkpoint=save"),
        (WANTED, "probe=..."),
    ],
)
def test_what_the_script_has_no_means_for_is_refused_with_what_to_write(
    server: Served, obedient: Writer, body: dict[str, Any], advice: str
) -> None:
    obedient.said["commands"] = [name for name in obedient.said["commands"] if name != body["command"]]
    with server.ingest() as socket:
        socket.store(obedient, obedient.opening() + obedient.steps([0]))
        refused(server, obedient.run, 409, advice, body)
        assert orders(socket, obedient) == []
    assert server.get(f"/api/runs/{obedient.run}/events?kind=control") == {"events": []}


def test_a_hook_of_before_the_second_command_takes_the_first_one(server: Served, obedient: Writer) -> None:
    del obedient.said["commands"]
    with server.ingest() as socket:
        socket.store(obedient, obedient.opening() + obedient.steps([0]))
        assert server.get(f"/api/runs/{obedient.run}")["commands"] == ["probe_landscape"]
        assert ask(server, obedient.run).status_code == 202
        refused(server, obedient.run, 409, "upgrade", {"command": "stop"})


def test_only_rank_0_of_the_newest_attempt_is_told_over_every_socket_that_carries_it(
    server: Served, obedient: Writer
) -> None:
    said = obedient.said
    second = Writer(**{**said, "rank": 1})
    bystander = Writer(**{**said, "run": said["run"] + " other"})
    later = Writer(**{**said, "launch": "later", "start_step": 3})
    with server.ingest() as old, server.ingest() as new, server.ingest() as again:
        for writer in (obedient, second, bystander):
            old.store(writer, writer.opening() + writer.steps([0, 1, 2, 3]))
        new.store(later, later.opening())
        again.store(later, later.steps([3]))
        answer = ask(server, obedient.run)
        for socket in (new, again):
            assert socket.until(Kind.CONTROL).header.items() >= {"writer": later.key, **answer.json()}.items()
        assert orders(old, obedient) == []


def test_a_training_that_does_not_allow_it_is_left_alone(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps([0]))
        about = server.get(f"/api/runs/{writer.run}")
        assert about["control"] is False and about["commands"] == []
        refused(server, writer.run, 409, "control=True")
        assert orders(socket, writer) == []
    assert server.get(f"/api/runs/{writer.run}/events?kind=control") == {"events": []}


@pytest.mark.parametrize(("state", "word"), [("finished", "ended"), ("failed", "failed")])
def test_a_run_that_is_over_takes_no_command(server: Served, obedient: Writer, state: str, word: str) -> None:
    with server.ingest() as socket:
        socket.store(obedient, obedient.opening() + obedient.finish(state))
        refused(server, obedient.run, 409, word)


def test_a_training_that_is_not_connected_is_not_waited_for(server: Served, obedient: Writer) -> None:
    with server.ingest() as socket:
        socket.store(obedient, obedient.opening() + obedient.steps([0]))
        assert ask(server, obedient.run).status_code == 202
    assert server.wait("/healthz", lambda _: ask(server, obedient.run).status_code == 409)
    refused(server, obedient.run, 409, "not connected")
    with server.ingest() as socket:
        socket.store(obedient, obedient.steps([1]))
        assert ask(server, obedient.run).status_code == 202
        assert socket.until(Kind.CONTROL).header["writer"] == obedient.key
    assert len(server.get(f"/api/runs/{obedient.run}/events?kind=control")["events"]) >= 2


def test_another_rank_alone_is_no_training_to_command(server: Served, obedient: Writer) -> None:
    obedient.said["rank"] = 1
    with server.ingest() as socket:
        socket.store(obedient, obedient.opening() + obedient.steps([0]))
        refused(server, obedient.run, 409, "not connected")


WRONG: list[tuple[Any, str]] = [
    ({}, "'command'"),
    ([], "body"),
    ({**WANTED, "command": "reboot"}, "probe_landscape"),
    ({"command": "probe_landscape"}, "'plane'"),
    ({**WANTED, "plane": "sea"}, "'update', 'trajectory' or 'random'"),
    ({**WANTED, "levels": 6}, "5, 9, 17 or 33"),
    ({**WANTED, "levels": "many"}, "'levels'"),
    ({**WANTED, "seed": -1}, "'seed'"),
    ({**WANTED, "seed": 2**53}, "'seed'"),
    ({**WANTED, "seed": True}, "'seed'"),
    ({**WANTED, "seed": 1.5}, "'seed'"),
    ({**WANTED, "value": 1}, "'value'"),
    ({"command": ["stop"]}, "set_threshold, stop, checkpoint, probe_landscape"),
    ({"command": "set_threshold"}, "'value'"),
    ({"command": "stop", "value": 1.0}, "'value'"),
    *(({"command": "set_threshold", "value": value}, "'value'") for value in (0, -1, True, "1", "Infinity", None, [1])),
]


def test_nonsense_is_answered_with_a_sentence_and_goes_nowhere(server: Served, obedient: Writer) -> None:
    with server.ingest() as socket:
        socket.store(obedient, obedient.opening() + obedient.steps([0]))
        for body, word in WRONG:
            refused(server, obedient.run, 422, word, body)
        refused(server, "nope", 404, "no such run")
        assert orders(socket, obedient) == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_threshold_is_a_finite_number(server: Served, obedient: Writer, number: str) -> None:
    with server.ingest() as socket:
        socket.store(obedient, obedient.opening() + obedient.steps([0]))
        body = f'{{"command": "set_threshold", "value": {number}}}'
        headers = {"content-type": "application/json"}
        answer = httpx.post(f"{server.url}/api/runs/{obedient.run}/control", content=body, headers=headers)
        assert answer.status_code == 422 and "'value'" in answer.json()["detail"]
        assert orders(socket, obedient) == []


def test_a_page_of_another_origin_cannot_command(server: Served, obedient: Writer) -> None:
    with server.ingest() as socket:
        socket.store(obedient, obedient.opening() + obedient.steps([0]))
        for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}):
            assert ask(server, obedient.run, headers=headers).status_code == 403
        assert orders(socket, obedient) == []
