"""Ranks as threads over torch's own stores: all act at one step or none does, whatever their pace, and nobody hangs."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from gradwatch import agreement
from gradwatch.agreement import Agreement

dist: Any = torch.distributed  # whose stores its stubs do not know

WANTED = {"command": "stop", "id": "1"}


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agree a little sooner than trainings do, for the sake of the tests' time."""
    monkeypatch.setattr(agreement, "_MARGIN_SECONDS", 0.3)


class Rank:
    """A training that does nothing but count its steps, in a thread, until it is told to end."""

    def __init__(self, agreement: Agreement, seconds: Callable[[], float], refusal: str = "") -> None:
        self.agreement, self.seconds = agreement, seconds
        self.said = refusal
        self.step = 0
        self.acted: list[tuple[int, Mapping[str, Any]]] = []
        self.obstacles: list[tuple[int, str]] = []
        self.longest = 0.0
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self._train, daemon=True)

    def refusal(self, command: Mapping[str, Any]) -> str:
        return self.said

    def _train(self) -> None:
        while not self.ends.is_set():
            begun = time.perf_counter()
            verdict = self.agreement.due(self.step, self)
            self.longest = max(self.longest, time.perf_counter() - begun)
            if verdict is not None and verdict.obstacle:
                self.obstacles.append((self.step, verdict.obstacle))
            elif verdict is not None:
                self.acted.append((self.step, verdict.command))
            self.step += 1
            try:
                time.sleep(self.seconds())
            except threading.BrokenBarrierError:
                return

    def end(self) -> None:
        self.ends.set()
        self.thread.join(60)
        assert not self.thread.is_alive()
        self.agreement.close()


def trainings(stores: list[Any], paces: list[Callable[[], float]], refusals: Mapping[int, str] | None = None) -> Any:
    count = len(stores)
    channel = secrets.token_hex(4)
    made = [Agreement(channel, rank, count, lambda store=store: store) for rank, store in enumerate(stores)]  # type: ignore[misc]
    ranks = [Rank(made[rank], paces[rank], (refusals or {}).get(rank, "")) for rank in range(count)]
    for rank in ranks:
        rank.thread.start()
    return ranks


def until(holds: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def one_store(count: int) -> list[Any]:
    return [dist.HashStore()] * count


@pytest.mark.parametrize("kind", ["hash", "file", "tcp"])
def test_all_ranks_act_at_the_same_step_on_every_store(kind: str, tmp_path: Path) -> None:
    if kind == "hash":
        stores = one_store(3)
    elif kind == "file":
        stores = [dist.FileStore(str(tmp_path / "store"), 3) for _ in range(3)]
    else:
        server = dist.TCPStore("127.0.0.1", 0, 3, True, wait_for_workers=False)
        clients = [dist.TCPStore("127.0.0.1", server.port, 3, False, wait_for_workers=False) for _ in range(2)]
        stores = [server, *clients]
    ranks = trainings([dist.PrefixStore("group", store) for store in stores], [lambda: 0.002] * 3)
    asked = [{**WANTED, "id": str(number)} for number in range(3)]
    for command in asked:
        assert ranks[0].agreement.ask(command)
    until(lambda: all(len(rank.acted) == 3 for rank in ranks))
    for rank in ranks:
        rank.end()
    assert ranks[0].acted == ranks[1].acted == ranks[2].acted
    assert [command for _, command in ranks[0].acted] == asked
    assert not any(rank.obstacles for rank in ranks)


def test_ranks_of_unlike_and_changing_pace_act_at_one_step_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """They meet only at every 40th step, so promises are reached, waited at and given up."""
    monkeypatch.setattr(agreement, "_PATIENCE", 0.05)
    monkeypatch.setattr(agreement, "_MARGIN_SECONDS", 0.05)
    seed = secrets.randbits(32)
    chance, meeting = random.Random(seed), threading.Barrier(4)

    def pace(seconds: float) -> Callable[[], float]:
        steps = iter(range(1, 1_000_000))

        def next_pause() -> float:
            if next(steps) % 40 == 0:
                meeting.wait(30)
            return chance.choice((0.0, seconds, 4 * seconds))

        return next_pause

    ranks = trainings(one_store(4), [pace(seconds) for seconds in (0.002, 0.0005, 0.006, 0.001)])
    for number in range(12):
        ranks[0].agreement.ask({**WANTED, "id": str(number)})
        # The others need not have seen what was given up before they looked.
        until(lambda known=number: len(ranks[0].acted) + len(ranks[0].obstacles) > known, 30)  # type: ignore[misc]
        until(lambda: all(len(rank.acted) == len(ranks[0].acted) for rank in ranks), 30)
    acted = [rank.acted for rank in ranks]
    for rank in ranks:
        rank.ends.set()
    meeting.abort()
    for rank in ranks:
        rank.agreement.close()
    assert acted[0] == acted[1] == acted[2] == acted[3], f"seed {seed}"
    assert len(acted[0]) + len(ranks[0].obstacles) == 12, f"seed {seed}"


def test_ranks_that_are_kept_together_never_wait() -> None:
    together = threading.Barrier(2)
    ranks = trainings(one_store(2), [lambda: together.wait(10) * 0.0 + 0.001] * 2)
    ranks[0].agreement.ask(WANTED)
    until(lambda: all(rank.acted for rank in ranks))
    for rank in ranks:
        rank.ends.set()
    together.abort()
    assert ranks[0].acted == ranks[1].acted
    assert max(rank.longest for rank in ranks) < 0.1 < agreement._PATIENCE
    for rank in ranks:
        rank.agreement.close()


def test_a_rank_that_does_not_listen_is_named_and_nobody_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_MISSED", 0.3)
    store = dist.HashStore()
    made = [Agreement("alone", rank, 4, lambda: store) for rank in (0, 2)]
    ranks = [Rank(one, lambda: 0.002) for one in made]
    for rank in ranks:
        rank.thread.start()
    ranks[0].agreement.ask(WANTED)
    until(lambda: ranks[0].obstacles)
    for rank in ranks:
        rank.end()
    ((_, obstacle),) = ranks[0].obstacles
    assert obstacle.startswith("ranks 1, 3 do not listen") and "control=True" in obstacle
    assert not ranks[0].acted and not ranks[1].acted and not ranks[1].obstacles
    assert ranks[0].longest < 0.1


def test_what_one_rank_cannot_do_nobody_does() -> None:
    ranks = trainings(one_store(3), [lambda: 0.002] * 3, {1: "it has no threshold"})
    ranks[0].agreement.ask(WANTED)
    until(lambda: ranks[0].obstacles and ranks[1].obstacles)  # the third need not have looked before it was over
    for rank in ranks:
        rank.end()
    assert {obstacle for rank in ranks for _, obstacle in rank.obstacles} == {"rank 1: it has no threshold"}
    assert not any(rank.acted for rank in ranks)


def test_nobody_acts_when_a_rank_stands_still_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_PATIENCE", 0.3)
    stands = threading.Event()
    ranks = trainings(one_store(3), [lambda: 0.002, lambda: 0.002, lambda: stands.wait(20) * 0.0 + 0.002])
    time.sleep(0.5)
    ranks[0].agreement.ask(WANTED)
    until(lambda: ranks[0].obstacles)
    stands.set()
    ((_, obstacle),) = ranks[0].obstacles
    assert "waited 0.3 s for the others at step" in obstacle
    # It goes on, and what was given up is over; the next command is done by all.
    ranks[0].agreement.ask({**WANTED, "id": "2"})
    until(lambda: all(rank.acted for rank in ranks))
    for rank in ranks:
        rank.end()
    assert ranks[0].acted == ranks[1].acted == ranks[2].acted and len(ranks[0].acted) == 1
    assert 0.3 <= max(rank.longest for rank in ranks[:2]) < 2


@pytest.mark.parametrize("leaver", [0, 1])
def test_a_rank_that_ends_settles_what_is_open_and_is_not_waited_for(leaver: int) -> None:
    stands = threading.Event()
    paces: list[Callable[[], float]] = [lambda: 0.002, lambda: 0.002, lambda: stands.wait(20) * 0.0 + 0.002]
    ranks = trainings(one_store(3), paces)
    time.sleep(0.5)
    ranks[0].agreement.ask(WANTED)
    staying = ranks[1 - leaver]
    until(lambda: all(rank.agreement._asked is not None for rank in ranks[:2]))
    ranks[leaver].agreement.close()
    until(lambda: staying.obstacles, 4)
    ((_, obstacle),) = staying.obstacles
    assert "ended" in obstacle or "not listen any more" in obstacle, obstacle
    stands.set()
    for rank in ranks:
        rank.end()
    assert not any(rank.acted for rank in ranks)


class Failing:
    """A store that is there, until it is not."""

    def __init__(self, store: Any) -> None:
        self.store, self.is_gone = store, False

    def __getattr__(self, name: str) -> Any:
        if self.is_gone:
            raise dist.DistNetworkError("Connection was likely closed")
        return getattr(self.store, name)


def test_a_store_that_dies_stops_the_asking_and_not_the_training() -> None:
    store = Failing(dist.HashStore())
    ranks = trainings([store, store], [lambda: 0.002] * 2)
    ranks[0].agreement.ask(WANTED)
    until(lambda: all(rank.acted for rank in ranks))
    store.is_gone = True
    ranks[0].agreement.ask({**WANTED, "id": "2"})
    until(lambda: ranks[0].obstacles)
    step = ranks[1].step
    until(lambda: ranks[1].step > step + 5)
    for rank in ranks:
        rank.end()
    assert "Connection was likely closed" in ranks[0].obstacles[0][1]
    assert len(ranks[0].acted) == len(ranks[1].acted) == 1


def test_once_the_processes_are_parted_a_command_is_answered_at_once() -> None:
    stores: list[Any] = [dist.HashStore()]
    ranks = [Rank(Agreement("parted", 0, 2, lambda: stores[0]), lambda: 0.002)]
    ranks[0].thread.start()
    stores[0] = None
    until(lambda: ranks[0].agreement._ended)
    ranks[0].agreement.ask(WANTED)
    until(lambda: ranks[0].obstacles, 1)
    ranks[0].end()
    assert ranks[0].obstacles[0][1] == "torch.distributed has ended"


def test_no_more_than_sixteen_wait() -> None:
    alone = Agreement("many", 0, 2, dist.HashStore)
    assert [alone.ask(WANTED) for _ in range(17)] == [True] * 16 + [False]
    alone.close()


def test_an_agreement_keeps_no_store() -> None:
    """It would keep the server within it, whose port the next process group wants."""
    import gc
    import weakref

    made: list[Any] = [dist.HashStore()]
    alone = Agreement("weak", 0, 2, lambda: made[0])
    until(lambda: alone._listens)
    known = weakref.ref(made[0])
    made[0] = None
    until(lambda: alone._ended)
    gc.collect()
    assert known() is None
    alone.close()
