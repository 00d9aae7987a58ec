"""The writer against a database that fails in the middle: an ack says committed, and a frame is stored once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from gradwatch_server.store import tables
from gradwatch_server.store.engine import AWAY, trouble
from gradwatch_server.store.store import Store
from sqlalchemy.exc import DBAPIError, IntegrityError

from tests.network import Network
from tests.postgresql import PostgreSQL

from ..stream import Writer
from .opened import keep, rows


def through(network: Network, address: str) -> str:
    """The database at ``address``, reached through the network."""
    name = address.partition("?")[0].rpartition("/")[2]
    return f"postgresql+asyncpg://postgres@127.0.0.1:{network.port}/{name}"


def lose_answer(network: Network, drop: Callable[[], None]) -> None:
    """COMMIT arrives, and its answer is lost with the connection: nobody here knows whether it came true."""
    network.mode = "mute"
    asyncio.get_running_loop().call_later(0.3, _reset, network)


def _reset(network: Network) -> None:
    network.heal()
    network.reset()


def lose_connection(network: Network, drop: Callable[[], None]) -> None:
    """COMMIT never arrives."""
    network.reset()


def lose_backend(network: Network, drop: Callable[[], None]) -> None:
    """PostgreSQL ends the connection, as an operator can make it."""
    drop()


@pytest.mark.parametrize("fault", [lose_answer, lose_connection, lose_backend])
@pytest.mark.parametrize("boundary", ["before_commit", "after_commit"])
def test_a_lost_connection_loses_and_doubles_nothing(
    boundary: str, fault: Callable[[Network, Callable[[], None]], None], postgresql: PostgreSQL
) -> None:
    address = postgresql.new_database()

    async def scenario(network: Network) -> None:
        due = set[str]()

        def reached(where: str) -> None:
            if where in due:
                due.discard(where)
                fault(network, lambda: postgresql.drop_connections(address))

        store = Store(through(network, address), reached)
        await store.open()
        try:
            writer = Writer()
            assert await keep(store, writer.opening()) == ["ok", "ok"]
            for first in range(0, 40, 10):
                due.add(boundary)
                frames = [writer.steps([step]) for step in range(first, first + 10)]
                assert await asyncio.wait_for(keep(store, *frames), 10) == ["ok"] * 10
                assert not due
            due.add(boundary)
            assert await keep(store, *frames) == ["ok"] * 10  # sent once more, as after a reconnect
            known = store.registry.known(writer.key)
            assert known and known.acked == (writer.seq - 1, [])
            await asyncio.sleep(0.5)  # until the last connection has been cut
            assert [row[1] for row in await rows(store, tables.frames)] == list(range(writer.seq))
        finally:
            await store.close()

    with Network(postgresql.socket) as network:
        asyncio.run(scenario(network))


def test_frames_wait_for_a_short_while_and_are_then_refused(postgresql: PostgreSQL) -> None:
    address = postgresql.new_database()

    async def scenario(network: Network) -> None:
        store = Store(through(network, address))
        await store.open()
        try:
            writer = Writer()
            assert await keep(store, writer.opening()) == ["ok", "ok"]
            network.refuse()
            waiting = asyncio.create_task(keep(store, writer.steps([0])))
            await asyncio.sleep(1.5)
            assert not waiting.done()
            network.heal()
            assert await asyncio.wait_for(waiting, 10) == ["ok"]
            network.refuse()
            queued = [writer.steps([step]) for step in range(1, 4)]
            assert await asyncio.wait_for(keep(store, *queued), 15) == ["busy"] * 3
            assert store.writer.trouble == "busy"
            network.heal()
            assert await keep(store, *queued) == ["ok"] * 3
            assert store.writer.trouble is None
        finally:
            await store.close()

    with Network(postgresql.socket) as network:
        asyncio.run(scenario(network))


def test_what_a_failure_means() -> None:
    class Cause(Exception):
        def __init__(self, **said: Any) -> None:
            vars(self).update(said)

    for error, meaning in (
        (DBAPIError("", {}, Cause(sqlstate="53100")), "full"),
        (DBAPIError("", {}, Cause(sqlite_errorcode=13)), "full"),
        (DBAPIError("", {}, Cause(sqlite_errorcode=5)), "busy"),
        (OSError(28, "no space"), "full"),
        (ConnectionRefusedError(), "busy"),
        (TimeoutError(), "busy"),
        (IntegrityError("", {}, Cause()), None),
        (ValueError("our own"), None),
        (FileNotFoundError(), None),
    ):
        assert trouble(error) == meaning
        assert meaning != "busy" or isinstance(error, AWAY)
