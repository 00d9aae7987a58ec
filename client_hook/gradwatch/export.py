"""``gradwatch export``: a run's raw steps as a Parquet or CSV file."""

from __future__ import annotations

import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

import click

from gradwatch.client import Client
from gradwatch.download import Format, save, write
from gradwatch.fetch import ClientError, Fetcher

_FORMATS: Final = ("parquet", "csv")


@click.command()
@click.argument("run")
@click.option("--format", "format", type=click.Choice(_FORMATS), help="By default what --output ends in, else parquet.")
@click.option("--output", help="The file; - is standard output. By default the run's name and id, here.")
@click.option("--match", help="Only layers whose names match this pattern, such as 'encoder.*'.")
@click.option("--first", type=click.IntRange(0), help="Step to begin at.")
@click.option("--last", type=click.IntRange(0), help="Step to end at.")
@click.option("--force", is_flag=True, help="Replace the file if it is there already.")
@click.option("--server", help="Address of the server; by default the one of this user on this machine.")
def export(run: str, format: str | None, output: str | None, force: bool, server: str | None, **query: Any) -> None:
    """Write every step and layer of RUN (its id, its name, or the address of its page) into a file."""
    chosen = cast(Format, format or _ending(output) or "parquet")
    try:
        found = Client(_server_of(run, server)).run(run)
        if output == "-":
            _to_standard_output(found.fetcher, found.id, chosen, query)
            return
        path = Path(output or f"{_as_file_name(found.name)}-{found.id}.{chosen}")
        with _Bar() as bar:
            size = save(found.fetcher, found.id, path, chosen, force=force, tell=bar.tell, **query)
    except ClientError as error:
        advice = "; --force replaces it" if "is there already" in str(error) else ""
        raise click.ClickException(f"{error}{advice}") from None
    click.echo(f"{path}: {size:,} bytes", err=True)


def _server_of(run: str, server: str | None) -> str | None:
    """The server's address: as it is given, or before the ``#/run/`` or ``/api/`` of the run's own."""
    if not run.startswith(("http://", "https://")):
        return server
    parts = urlsplit(run)
    return server or f"{parts.scheme}://{parts.netloc}{parts.path.partition('/api/runs/')[0].rstrip('/')}"


def _ending(output: str | None) -> str | None:
    ending = Path(output or "").suffix.lstrip(".").lower()
    return ending if ending in _FORMATS else None


def _as_file_name(name: str) -> str:
    """A run's name with what file systems dislike left out."""
    return re.sub(r"[^\w.=+-]+", "-", name).strip("-.")[:80] or "run"


def _to_standard_output(fetcher: Fetcher, run: str, format: Format, query: dict[str, Any]) -> None:
    output = sys.stdout.buffer
    if format == "parquet" and sys.stdout.isatty():
        raise ClientError("Parquet is nothing to read on a terminal: name a file by --output, or write to a pipe")
    try:
        with _Bar() as bar:
            write(fetcher, run, output, format, tell=bar.tell, **query)
        output.flush()
    except BrokenPipeError:
        # Whoever read it has seen enough. What is still buffered must not raise once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


class _Bar:
    """Shows on standard error how far it is, by the bytes that the server expects: full only when all have come."""

    def __enter__(self) -> Self:
        self._open = ExitStack()
        self._bar: Any = None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None and kind is None:
            self._bar.update(self._bar.length - self._bar.pos)
        self._open.close()

    def tell(self, size: int, expected: int) -> None:
        if self._bar is None:
            length = max(expected, 1)
            self._bar = self._open.enter_context(click.progressbar(length=length, label="exporting", file=sys.stderr))
        most = self._bar.length - 1
        self._bar.update(max(0, min(size, most) - self._bar.pos))
