"""``gradwatch doctor``: looks at what a training or a server needs here, and says what to do about what is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Final

import click

from gradwatch.health import Check
from gradwatch.health.environment import check_settings
from gradwatch.health.machine import check_machine
from gradwatch.health.server import check_server
from gradwatch.health.storage import check_storage

_WORST_FIRST: Final = ("fail", "warn", "ok")
_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--server", help="Address of the server; by default the one of this user on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(server: str | None, as_json: bool) -> None:
    """Check this machine, the settings and the server, and say what to do. Ends with status 1 when something fails."""
    checks = examine(server)
    states = {check.state for check in checks}
    worst = next(state for state in _WORST_FIRST if state in states)
    if as_json:
        rows = [{"name": c.name, "state": c.state, "text": c.text, "advice": c.advice} for c in checks]
        click.echo(json.dumps({"state": worst, "checks": rows}, indent=2))
    else:
        for check in checks:
            click.echo(_line(check))
    raise SystemExit(1 if worst == "fail" else 0)


def examine(server: str | None = None) -> list[Check]:
    """Every check. One that breaks itself becomes a finding: the others still run."""
    checks = _guarded("machine", check_machine)
    found, settings = check_settings(os.environ, server)
    checks += found
    if settings is not None:
        checks += _guarded("directory", lambda: check_storage(settings))
        if settings.mode == "online" or settings.server is not None:
            checks += _guarded("server", lambda: check_server(settings))
    return checks


def _guarded(name: str, look: Callable[[], list[Check]]) -> list[Check]:
    try:
        return look()
    except Exception as error:
        return [Check(name, "fail", f"could not be checked: {error!r}", "please report this as a bug of gradwatch")]


def _line(check: Check) -> str:
    state = click.style(f"{check.state:<5}", fg=_COLOURS[check.state])
    advice = f" -> {check.advice}" if check.advice else ""
    return f"{state}{check.name:<10} {check.text}{advice}"
