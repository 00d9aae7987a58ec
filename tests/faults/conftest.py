"""Sessions on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.faults.sessions import Session, session
from tests.postgresql import PostgreSQL

OpenSession = Callable[[str], AbstractContextManager[Session]]


@pytest.fixture(params=["sqlite", "postgresql"])
def open_session(request: pytest.FixtureRequest, tmp_path: Path) -> OpenSession:
    """Opens a session on an empty database, as often as called; the test runs once for each kind."""
    server = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    return _sessions(tmp_path / request.param, request.node.name, server)


@pytest.fixture
def open_sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> OpenSession:
    return _sessions(tmp_path / "sqlite", request.node.name, None)


@pytest.fixture
def open_postgresql(request: pytest.FixtureRequest, tmp_path: Path, postgresql: PostgreSQL) -> OpenSession:
    return _sessions(tmp_path / "postgresql", request.node.name, postgresql)


def _sessions(place: Path, test: str, server: PostgreSQL | None) -> OpenSession:
    numbers = count()  # asking it for the next one is atomic: cells open their sessions side by side

    @contextmanager
    def opened(about: str) -> Iterator[Session]:
        database = server.new_database() if server else ""
        folder = place.with_name(f"{place.name}{next(numbers)}")
        with session(folder, database, f"{test} {about}".strip()) as one:
            yield one
        if server:
            server.drop_database(database)

    return opened
