"""The ``gradwatch`` command. The server's commands join by entry points, so neither side imports the other."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import click

from gradwatch import __version__
from gradwatch.settings import Settings, home

_OWN: Final = {
    "sync": "gradwatch.cli:sync",
    "demo": "gradwatch.demo.command:demo",
    "doctor": "gradwatch.doctor:doctor",
    "export": "gradwatch.export:export",
}
_SERVER: Final = ("backup", "serve", "token")


class Commands(click.Group):
    """Loads a command when it is asked for, so that ``gradwatch sync`` needs neither torch nor a server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*_OWN, *_SERVER, *(point.name for point in entry_points(group="gradwatch.commands"))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        try:
            found = self._load(cmd_name)
        except ModuleNotFoundError as error:
            raise click.ClickException(_missing(cmd_name, error.name or "")) from None
        return found

    def _load(self, name: str) -> click.Command | None:
        if name in _OWN:
            module, attribute = _OWN[name].split(":")
            command = getattr(import_module(module), attribute)
            assert isinstance(command, click.Command)
            return command
        for point in entry_points(group="gradwatch.commands"):
            if point.name == name:
                command = point.load()
                assert isinstance(command, click.Command)
                return command
        return None


def _missing(command: str, module: str) -> str:
    extra = "demo" if command == "demo" else "torch" if module == "torch" else "server"
    return f"`gradwatch {command}` needs {module}: pip install 'gradwatch[{extra}]'"


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="gradwatch")
def main() -> None:
    """Clip gradients in a PyTorch training loop and watch, live in a browser, what the clipping does."""


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.option("--server", help="Address of the server; by default the one of this user on this machine.")
def sync(directory: Path | None, server: str | None) -> None:
    """Deliver to a running server what ended runs have left in the spool DIRECTORY (default: GRADWATCH_DIR/spool)."""
    from gradwatch.sync import SyncFailed, deliver_leftovers

    try:
        settings = Settings.gather(server=server)
        spool = home() / "spool"
        if directory is None and not spool.is_dir():
            click.echo(f"nothing waits in {spool}")
            return
        synced = deliver_leftovers(directory or spool, settings)
    except (SyncFailed, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{_spools(synced.delivered)} delivered")
    if synced.living:
        click.echo(f"{_spools(synced.living)} left alone: still written, or delivered by another")
    if synced.kept:
        raise click.ClickException(f"{_spools(synced.kept)} not taken by the server; what it said stands above")


def _spools(count: int) -> str:
    return f"{count} spool{'' if count == 1 else 's'}"


if __name__ == "__main__":
    main()
