"""What is learnt from a server's answers: acks, refusals, commands."""

from __future__ import annotations

import random
import sys

import pytest
from gradwatch import frames
from gradwatch.delivery import Delivery, Flight
from gradwatch.frames import Frame, Kind

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
    assert delivery.covers(700, 710) and not delivery.covers(615, 705) and not delivery.covers(700, 711)


def test_ranges_in_any_order_come_to_what_a_set_of_seqs_says() -> None:
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    chance, delivery, truth = random.Random(seed), Delivery(), set[int]()
    for _ in range(200):
        first = chance.randrange(500)
        last = min(first + chance.randrange(20), 499)
        truth |= set(range(first, last + 1))
        delivery.take(answer(Kind.ACK, through=-1, ranges=[[first, last]]), WRITER)
        first = chance.randrange(500)
        last = min(first + chance.randrange(30), 499)
        assert delivery.covers(first, last) == (set(range(first, last + 1)) <= truth)
        assert delivery.through == next(seq for seq in range(501) if seq not in truth) - 1


def test_a_flight_counts_what_is_not_acked_yet() -> None:
    delivery, flight = Delivery(), Flight()
    for first in range(0, 50, 10):
        flight.sent(first, first + 9, 100)
    assert flight.size(delivery) == 500
    delivery.take(answer(Kind.ACK, through=19, ranges=[[30, 38]]), WRITER)
    assert flight.size(delivery) == 300
    delivery.take(answer(Kind.ACK, through=38, ranges=[]), WRITER)
    assert flight.size(delivery) == 200
    delivery.take(answer(Kind.ACK, through=49, ranges=[]), WRITER)
    assert flight.size(delivery) == 0


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
    assert (delivery.again, delivery.deleted, delivery.take_tombstones(WRITER)) == (again, deleted, [])
