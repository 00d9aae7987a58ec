"""The server dies by SIGKILL, at random moments and at each boundary: nothing is missing, doubled or changed.

What streams is a client without torch, so that kills follow one another in a fraction of a second; ``test_training.py``
does some of it with a real training.
"""

from __future__ import annotations

import time
from functools import partial

import pytest

from tests.faults.conftest import OpenSession
from tests.faults.forked import Forked, ForkedServer
from tests.faults.sessions import SOAK, Session, side_by_side
from tests.faults.streaming_client import ROWS

KILLS = 10
BOUNDARIES = ("received", "before_commit", "after_commit", "before_rules", "before_seal", "after_seal")


def await_steps(session: Session, server: ForkedServer) -> None:
    """Wait until a step arrives that was not there before: then the client streams to this very server."""
    server.await_json("/api/runs", lambda found: found["runs"])
    path = f"/api/runs/{session.truth().run}"
    before = server.get(path)["last_step"] or 0
    server.await_json(path, lambda found: (found["last_step"] or 0) > before)


def check(session: Session, client: Forked) -> None:
    """The client ends by itself on a last server; that one must then tell all that the client produced."""
    with session.server() as server:
        await_steps(session, server)
        session.stop(client)
        truth = session.truth()
        assert truth.check(server) > ROWS * KILLS
        truth.check_alerts(server)
    session.check_database()


@pytest.mark.timeout(600 + 60 * SOAK)
def test_at_random_moments_and_at_each_boundary(open_session: OpenSession) -> None:
    cells = [partial(run_cell, open_session, boundary) for boundary in ("", *BOUNDARIES) for _ in range(SOAK)]
    side_by_side(cells)


def run_cell(open_session: OpenSession, boundary: str) -> None:
    """KILLS servers die one after another under a client that lives; ``boundary`` "": at any moment."""
    with open_session(boundary) as session, session.client() as client:
        for _ in range(KILLS):
            if boundary:
                server = session.server(boundary, session.random.randint(1, 5))
                assert server.wait(30) == -9, server.output
            else:
                server = session.server()
                # Until the client has found the new server nothing streams, and a kill would test nothing.
                await_steps(session, server)
                time.sleep(session.random.uniform(0, 0.3))
                server.kill()
        check(session, client)
