"""The server's commands: they join the ``gradwatch`` group through its entry point."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from .settings import Settings


@click.command()
@click.option("--host", help="Address to listen on (default 127.0.0.1; any other needs a token).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port (default 7531, or the next free one).")
@click.option("--database", help="Database URL or SQLite file (default gradwatch.db in GRADWATCH_DIR).")
@click.option("--open", "open_browser", is_flag=True, help="Open the dashboard in a browser.")
def serve(host: str | None, port: int | None, database: str | None, open_browser: bool) -> None:
    """Start the server and its dashboard."""
    from . import serve as serving  # here, so that other commands do not load all of the server

    given: dict[str, Any] = {"host": host, "port": port, "database": database}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(["GRADWATCH", *(str(part) for part in first["loc"][:1])]).upper()
        raise click.ClickException(f"{name} is not right: {first['msg']}") from None
    serving.run(settings, port_is_given=port is not None, open_browser=open_browser)


@click.group()
def token() -> None:
    """The token that a server which others can reach asks for."""


@token.command()
def create() -> None:
    """Make a fresh token and say how to use it. It is shown once and stored nowhere."""
    fresh = secrets.token_urlsafe(32)
    click.echo(fresh)
    click.echo("Set it for the server and for every training that streams to it:", err=True)
    click.echo(f"  export GRADWATCH_TOKEN={fresh}", err=True)
    click.echo("Browsers ask for it once, in the login form.", err=True)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--database", help="Database URL or SQLite file (default gradwatch.db in GRADWATCH_DIR).")
def backup(file: Path, database: str | None) -> None:
    """Copy the database to FILE, as it is at this moment; the server may go on."""
    from .backup import CannotBackUp, back_up

    given: dict[str, Any] = {} if database is None else {"database": database}
    settings = Settings(**given)
    try:
        with click.progressbar(length=1, label="copying", file=sys.stderr) as bar:

            def show(done: int, pages: int) -> None:
                bar.length = max(1, pages)
                bar.update(done - bar.pos)

            back_up(settings.database_url, file, show)
    except CannotBackUp as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"copied to {file}")


@click.group()
def main() -> None:
    """gradwatch's server."""


main.add_command(serve)
main.add_command(token)
main.add_command(backup)
