"""Real servers and trainings, each in a process of its own, as a user would have them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

SETTINGS = (
    "SERVER",
    "TOKEN",
    "MODE",
    "PROJECT",
    "RUN",
    "GROUP",
    "SPOOL_CAP",
    "DATABASE",
    "HOST",
    "PORT",
    "WEBHOOK_URL",
)


def clean_environment(directory: Path, **said: str) -> dict[str, str]:
    """This process's environment without its own gradwatch settings; ``said`` in their place."""
    kept = {name: value for name, value in os.environ.items() if name.removeprefix("GRADWATCH_") not in SETTINGS}
    return {**kept, "GRADWATCH_DIR": str(directory), "PYTHONUNBUFFERED": "1", **said}


class Process:
    """A child process that ends with the ``with`` block, by SIGTERM and then by force."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with open(log, "ab") as file:
            self.popen = subprocess.Popen(
                command, env=dict(environment), stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd=log.parent
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def wait(self, seconds: float = 60) -> int:
        return self.popen.wait(seconds)

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(15)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise AssertionError(f"the process did not end at signal {number}: {self.output[-2000:]}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.popen.poll() is None:
            self.end()


# One for all questions: making one reads the system's certificates, which takes longer than most answers. It keeps no
# connection open, because servers come and go.
_CLIENT = httpx.Client(timeout=30, verify=False, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


class Asking:
    """Questions to the server at ``url``."""

    url: str

    def get(self, path: str, **options: Any) -> Any:
        """The JSON of an answer that must be 200."""
        answer = _CLIENT.get(self.url + path, **options)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
        return answer.json()

    def await_json(self, path: str, holds: Callable[[Any], object], seconds: float = 30) -> Any:
        """The JSON of ``path`` as soon as ``holds`` is true of it."""
        until = time.monotonic() + seconds
        while True:
            found = self.get(path)
            if holds(found):
                return found
            assert time.monotonic() < until, f"{path} after {seconds} s: {str(found)[:2000]}"
            time.sleep(0.05)

    def raw_series(self, run: str, names: Sequence[str]) -> dict[str, list[Any]]:
        """Every raw step: {"step": [...], name: [...]}, page by page, with non-finite numbers as floats."""
        found: dict[str, list[Any]] = {"step": [], **{name: [] for name in names}}
        first: int | None = 0
        while first is not None:
            page = self.get(f"/api/runs/{run}/series?names={','.join(names)}&columns=0&first={first}")
            found["step"] += page["step"]
            for name in names:
                found[name] += [None if value is None else float(value) for value in page["series"][name]["value"]]
            first = page["next"]
        return found


def await_announcement(directory: Path, alive: Callable[[], bool]) -> str | None:
    """The address that a starting server writes to server.json; None when it ends before, or takes over a minute."""
    until = time.monotonic() + 60
    while not (directory / "server.json").exists():
        if not alive() or time.monotonic() > until:
            return None
        time.sleep(0.02)
    address: str = json.loads((directory / "server.json").read_text())["url"]
    return address


class ServerProcess(Process, Asking):
    """``gradwatch serve`` (or ``command``) on ``directory``; ready when constructed."""

    def __init__(self, directory: Path, *arguments: str, command: Sequence[str] | None = None, **said: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "server.json").unlink(missing_ok=True)  # a killed server has left its own
        whole = [*(command or (sys.executable, "-m", "gradwatch.cli", "serve")), *(arguments or ("--port", "0"))]
        super().__init__(whole, clean_environment(directory, **said), directory / "server.log")
        address = await_announcement(directory, lambda: self.popen.poll() is None)
        assert address, f"the server did not start: {self.output[-2000:]}"
        self.url = address


def python(script: Path, environment: Mapping[str, str], log: Path, *arguments: str) -> Process:
    """A Python script in a process of its own."""
    return Process([sys.executable, str(script), *arguments], environment, log)
