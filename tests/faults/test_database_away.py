"""PostgreSQL ends, hangs or drops connections under a running server: it stays up, and goes on by itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest

from tests.faults.conftest import OpenSession
from tests.faults.forked import Forked, ForkedServer
from tests.faults.sessions import SOAK, Session
from tests.postgresql import PostgreSQL

# Longer than frames wait in the server's memory. The soak's is the minute that a failover may take.
AWAY_SECONDS = 8.0 if SOAK == 1 else 60.0
NOTICED_SECONDS = 12.0  # the health probe asks every 2 s, and gives the database 5 s to answer
BACK_SECONDS = 20.0


@contextmanager
def gone(postgresql: PostgreSQL) -> Iterator[None]:
    """It crashes; when the block ends it is started again."""
    postgresql.stop("immediate")
    try:
        yield
    finally:
        postgresql.start()


@contextmanager
def hanging(postgresql: PostgreSQL) -> Iterator[None]:
    """All its processes stand still, and connections to it with them."""
    family = [postgresql.process, *postgresql.process.children()]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            process.resume()


@pytest.mark.timeout(240 + 2 * AWAY_SECONDS)
@pytest.mark.parametrize("fault", [gone, hanging])
def test_frames_wait_in_the_clients_spools(
    fault: Callable[[PostgreSQL], AbstractContextManager[None]], open_postgresql: OpenSession, postgresql: PostgreSQL
) -> None:
    with open_postgresql("") as session, session.server() as server, session.client() as client:
        server.await_json("/api/runs", lambda found: found["runs"] and (found["runs"][0]["last_step"] or 0) > 500)
        with fault(postgresql):
            begun = time.monotonic()
            await_status(server, 503, "away", NOTICED_SECONDS)
            time.sleep(max(0.0, AWAY_SECONDS - (time.monotonic() - begun)))
            assert httpx.get(server.url + "/api/runs", timeout=30).status_code == 503
            assert server.is_alive() and client.is_alive()
        begun = time.monotonic()
        await_status(server, 200, "ready", BACK_SECONDS)
        newest = int(session.truth().steps["step"][-1])
        server.await_json("/api/runs", lambda found: found["runs"][0]["last_step"] >= newest, BACK_SECONDS)
        sys.stdout.write(f"{fault.__name__}: the newest step is shown {time.monotonic() - begun:.1f} s after\n")
        finish(session, server, client)
        assert "Traceback" not in server.output, server.output[-3000:]


def await_status(server: ForkedServer, status: int, word: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    while True:
        answer = httpx.get(server.url + "/healthz")
        if (answer.status_code, answer.json()["status"]) == (status, word):
            return
        assert time.monotonic() < until, answer.text
        time.sleep(0.1)


@pytest.mark.timeout(120 + 30 * SOAK)
def test_connections_are_dropped_again_and_again(open_postgresql: OpenSession, postgresql: PostgreSQL) -> None:
    """As a proxy before the database does, or an operator: whatever was under way has to be done anew."""
    with open_postgresql("") as session, session.server() as server, session.client() as client:
        server.await_json("/api/runs", lambda found: found["runs"])
        for _ in range(10 * SOAK):
            time.sleep(session.random.uniform(0.05, 0.4))
            postgresql.drop_connections(session.database)
        finish(session, server, client)
        assert "Traceback" not in server.output, server.output[-3000:]


@pytest.mark.timeout(120)
def test_a_server_whose_database_hangs_still_ends(open_postgresql: OpenSession, postgresql: PostgreSQL) -> None:
    with open_postgresql("") as session, session.server() as server, session.client() as client:
        server.await_json("/api/runs", lambda found: found["runs"])
        with hanging(postgresql):
            time.sleep(1)
            begun = time.monotonic()
            assert server.end() == 0, server.output
            seconds = time.monotonic() - begun
        sys.stdout.write(f"ended {seconds:.1f} s after SIGTERM\n")
        assert seconds < 10
        client.kill()
        with session.server() as later:  # it drains the spool of the killed client
            truth = session.truth()
            newest = int(truth.kept["step"][-1])
            later.await_json("/api/runs", lambda found: (found["runs"][0]["last_step"] or 0) >= newest)
            truth.check(later, whole=False)


def finish(session: Session, server: ForkedServer, client: Forked) -> None:
    session.stop(client)
    truth = session.truth()
    truth.check(server)
    truth.check_alerts(server)
