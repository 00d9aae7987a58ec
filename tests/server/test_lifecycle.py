"""Running, finished, failed, lost, and back again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gradwatch.frames import Kind
from gradwatch_server.lifecycle import Lifecycle
from gradwatch_server.store import runs
from gradwatch_server.store.states import combine
from gradwatch_server.store.store import Store

from .served import Served
from .store.opened import keep, opened
from .stream import Writer


class Writing:
    """A row that has the columns that states look at."""

    def __init__(self, rank: int, state: str, reason: str | None = None, ended_at: float | None = None) -> None:
        self.rank, self.state, self.reason, self.ended_at = rank, state, reason, ended_at


def test_the_state_of_a_run_follows_from_its_ranks() -> None:
    running, done, lost = Writing(0, "running"), Writing(1, "finished", None, 5.0), Writing(2, "lost", "silent", 4.0)
    failed = Writing(3, "failed", "boom", 3.0)
    assert combine([running]) == ("running", None, None)
    assert combine([running, done]) == ("running", None, None)
    assert combine([done]) == ("finished", None, 5.0)
    assert combine([done, lost]) == ("lost", "rank 2: silent", 4.0)
    assert combine([running, done, lost, failed]) == ("failed", "rank 3: boom", 3.0)


async def state_of(store: Store, writer: Writer) -> tuple[str, str | None]:
    async with store.engines.read.connect() as connection:
        run = await runs.get_run(connection, writer.run)
    assert run
    return run["state"], run["reason"]


def test_silence_makes_a_run_lost_only_after_the_grace_and_a_frame_brings_it_back(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            writer = Writer()
            await keep(store, writer.opening())
            known = store.registry.known(writer.key)
            assert known
            now = known.seen_at
            clock = [now]
            lifecycle = Lifecycle(store, 60.0, lambda: clock[0])
            await lifecycle.sweep()
            clock[0] = now + 59
            known.seen_at -= 1000
            await lifecycle.sweep()  # the server itself was not there longer
            assert (await state_of(store, writer))[0] == "running"
            clock[0] = now + 61
            store.heartbeat(writer.key, now + 50)
            await lifecycle.sweep()
            assert (await state_of(store, writer))[0] == "running"
            clock[0] = now + 120
            await lifecycle.sweep()
            state, reason = await state_of(store, writer)
            assert state == "lost" and reason and "60 s" in reason
            await keep(store, writer.steps([0]))
            assert await state_of(store, writer) == ("running", None)

    asyncio.run(scenario())


def test_finish_says_how_and_late_frames_do_not_undo_it(database: str) -> None:
    async def scenario() -> None:
        async with opened(database) as store:
            for state, reason in (("finished", ""), ("failed", "out of memory")):
                writer = Writer(run=state)
                late = [writer.opening(), writer.steps([0])]
                await keep(store, late[0], writer.finish(state, reason), late[1])
                assert await state_of(store, writer) == (state, reason or None)

    asyncio.run(scenario())


def test_a_heartbeat_keeps_a_run_alive_and_its_end_is_noticed(tmp_path: Path) -> None:
    with Served(tmp_path, lost_after_seconds=0.8) as served, served.ingest() as socket:
        writer = Writer()
        socket.store(writer, writer.opening())
        beat = {"writer": writer.key, "time": 0, "last_step": None}
        from gradwatch import frames

        for _ in range(6):
            socket.send(frames.encode(Kind.HEARTBEAT, beat))
            served.wait("/healthz", lambda _: True)
            import time

            time.sleep(0.25)
        assert served.get(f"/api/runs/{writer.run}")["state"] == "running"
        lost = served.wait(f"/api/runs/{writer.run}", lambda run: run["state"] == "lost")
        assert "0.8 s" in lost["reason"] and lost["ended_at"]
