"""What a sender learns from a server's answers, and what it does against servers that are odd."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from gradwatch import frames
from gradwatch.frames import Frame, Kind
from gradwatch.sender import Delivery, Sender
from gradwatch.spool import Spool

WRITER = "0123456789abcdef" * 2


def answer(kind: Kind, **header: object) -> Frame:
    return frames.decode(frames.encode(kind, {"writer": WRITER, **header}))


def test_acks_are_cumulative_and_never_go_back() -> None:
    delivery = Delivery()
    for through, expected in ((3, 3), (1, 3), (7, 7)):
        delivery.take(answer(Kind.ACK, through=through, ranges=[], pace=0.05), WRITER)
        assert delivery.through == expected
    assert delivery.pace == 0.05


def test_answers_about_others_are_passed_over() -> None:
    delivery = Delivery()
    delivery.take(answer(Kind.ACK, through=3, ranges=[]), "another")
    assert delivery.through == -1


def test_a_server_on_a_fresh_database_still_acks_what_it_gets() -> None:
    delivery = Delivery()
    delivery.take(answer(Kind.ACK, through=500, ranges=[]), WRITER)
    delivery.take(answer(Kind.ACK, through=1, ranges=[[450, 620]]), WRITER)
    assert delivery.through == 620
    delivery.take(answer(Kind.ACK, through=1, ranges=[[450, 620], [700, 710]]), WRITER)
    assert delivery.through == 620


def test_commands_wait_for_the_training_and_the_oldest_make_room() -> None:
    delivery = Delivery()
    delivery.take(answer(Kind.CONTROL, command="probe_landscape", id="other"), "another")
    for number in range(20):
        delivery.take(answer(Kind.CONTROL, command="probe_landscape", id=str(number)), WRITER)
    assert [command["id"] for command in delivery.take_commands()] == [str(number) for number in range(4, 20)]
    assert delivery.take_commands() == []


def test_a_frame_refused_for_good_is_replaced_by_a_tombstone(capsys: pytest.CaptureFixture[str]) -> None:
    delivery = Delivery()
    for _ in range(2):
        delivery.take(answer(Kind.REFUSE, seq=5, code="field", message="'rows' must be a whole number"), WRITER)
    tombstones = [frames.decode(data) for data in delivery.take_tombstones(WRITER)]
    assert {(frame.kind, frame.header["seq"], frame.header["reason"]) for frame in tombstones} == {
        (Kind.DROPPED, 5, "refused by the server: field")
    }
    assert capsys.readouterr().err.count("must be a whole number") == 1
    assert delivery.take_tombstones(WRITER) == []


@pytest.mark.parametrize(
    ("code", "again", "deleted"), [("version", True, False), ("hello", True, False), ("deleted", False, True)]
)
def test_some_refusals_ask_for_patience_or_for_an_end(code: str, again: bool, deleted: bool) -> None:
    delivery = Delivery()
    delivery.take(answer(Kind.REFUSE, seq=None, code=code, message="why"), WRITER)
    assert (delivery.again, delivery.deleted, delivery.tombstones) == (again, deleted, [])


def closing_takes(tmp_path: Path, address: str | None) -> float:
    spool = Spool(tmp_path, WRITER, 1 << 20)
    sender = Sender(spool, find=lambda: address, token=None, on_server=lambda url: None, last_step=lambda: None)
    sender.start()
    time.sleep(0.3)
    begun = time.monotonic()
    assert not sender.close(5, begun + 2)
    spool.close(delivered=False)
    return time.monotonic() - begun


def test_without_a_server_nobody_waits_at_the_end(tmp_path: Path) -> None:
    assert closing_takes(tmp_path / "none", None) < 1
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert closing_takes(tmp_path / "refused", f"http://127.0.0.1:{port}") < 1


def test_a_server_that_never_answers_costs_two_seconds_at_most(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert closing_takes(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}") < 3
