"""``gradwatch demo``: a server, two trainings in processes of their own, and the address to watch them at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Final

import click

from gradwatch.settings import home

_START_SECONDS: Final = 60
_END_SECONDS: Final = 10


@click.command()
@click.option("--steps", default=1000, show_default=True, type=click.IntRange(1), help="Steps of each training.")
@click.option("--browser/--no-browser", default=True, help="Open the dashboard in the browser.")
@click.option("--once", is_flag=True, help="End when the trainings have ended, instead of at Ctrl-C.")
def demo(steps: int, browser: bool, once: bool) -> None:
    """Train a small language model twice, with and without clipping, and watch both live."""
    for module, extra in (("torch", "demo"), ("gradwatch_server", "demo"), ("fastapi", "demo")):
        if find_spec(module) is None:
            raise click.ClickException(f"the demo needs {module}: pip install 'gradwatch[{extra}]'")
    signal.signal(signal.SIGTERM, _as_interrupt)
    directory = home() / "demo"
    for folder in (home(), directory):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with _server(directory) as (address, server):
            _watch_trainings(address, directory, steps, browser and not once)
            if once:
                click.echo(f"Kept in {directory}; to look at it: GRADWATCH_DIR={directory} gradwatch serve")
            else:
                click.echo(f"Both trainings have ended. The dashboard stays at {address} until Ctrl-C.")
                server.wait()
    except KeyboardInterrupt:
        click.echo("\nended")


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _watch_trainings(address: str, directory: Path, steps: int, browser: bool) -> None:
    click.echo(f"Dashboard: {address}")
    click.echo(f"Training one model twice for {steps} steps, clipped and not clipped ...")
    click.echo(
        "A quarter of the time goes into probes of the loss landscape, so that it is seen to grow; by default 1 %."
    )
    with _trainings(address, directory, steps) as trainings:
        if browser and _has_screen():
            webbrowser.open(address)
        failed = [training for training in trainings if training.wait() != 0]
    if failed:
        raise click.ClickException(f"a training ended with exit code {failed[0].returncode}; its words stand above")


def _has_screen() -> bool:
    # Without a screen, Python would open a text browser in this very terminal.
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _environment(directory: Path) -> dict[str, str]:
    """This process's environment without the user's own gradwatch: no team's database or webhook hears of a demo."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("GRADWATCH_")}
    return others | {"GRADWATCH_DIR": str(directory)}


@contextmanager
def _server(directory: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The server's address and process; ended with the block."""
    environment = _environment(directory)
    command = [sys.executable, "-m", "gradwatch.cli", "serve"]
    with open(directory / "server.log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield _await_address(directory, server), server
    finally:
        _end(server)


def _await_address(directory: Path, server: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if server.poll() is not None:
            words = (directory / "server.log").read_text().strip().removeprefix("Error: ")
            raise click.ClickException(f"the demo's server did not start: {words}")
        try:
            said = json.loads((directory / "server.json").read_text())
            if said["pid"] == server.pid:
                return str(said["url"])
        except (OSError, ValueError, KeyError):
            pass
        time.sleep(0.05)
    raise click.ClickException(f"the server did not start within {_START_SECONDS} seconds: see {directory}/server.log")


@contextmanager
def _trainings(address: str, directory: Path, steps: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    environment = _environment(directory) | {"GRADWATCH_SERVER": address}
    command = [sys.executable, "-m", "gradwatch.demo.train", "--steps", str(steps)]
    trainings = [
        subprocess.Popen([*command, clip], env=environment, start_new_session=True) for clip in ("--clip", "--no-clip")
    ]
    try:
        yield trainings
    finally:
        for training in trainings:
            _end(training)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process as Ctrl-C would, and without asking when it does not listen."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT if sys.platform != "win32" else signal.SIGTERM)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
