"""Databases of both kinds, and servers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgresql import PostgreSQL

from .served import Served
from .stream import Writer

_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database().replace("postgresql://", "postgresql+asyncpg://")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for tests that need nothing special; each uses runs of its own."""
    with Served(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def writer() -> Writer:
    """A writer of a run that no other test knows."""
    return Writer(run=f"run {next(_numbers)}")
