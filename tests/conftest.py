"""What all tests share: one thread for each process of theirs, and one PostgreSQL server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.postgresql import PostgreSQL

# Several threads would wait for one another wherever other tests run beside them. It is read when torch is imported,
# here and in processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server for all tests; each makes a database of its own."""
    with PostgreSQL.running() as running:
        yield running
