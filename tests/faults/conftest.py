"""Sessions on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

import pytest

from tests.faults.sessions import Session, session
from tests.postgresql import PostgreSQL

OpenSession = Callable[[str], AbstractContextManager[Session]]


@pytest.fixture(params=["sqlite", "postgresql"])
def open_session(request: pytest.FixtureRequest, tmp_path: Path) -> OpenSession:
    """Opens a session on an empty database, as often as called; the test runs once for each kind."""
    server: PostgreSQL | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
    numbers = count()  # its __next__ is atomic: cells open their sessions side by side

    def opened(about: str) -> AbstractContextManager[Session]:
        place = tmp_path / f"{request.param}{next(numbers)}"
        return session(place, server.new_database() if server else "", f"{request.node.name} {about}".strip())

    return opened


@pytest.fixture
def one_session(open_session: OpenSession) -> Iterator[Session]:
    """A session on an empty database of either kind."""
    with open_session("") as opened:
        yield opened
