"""The servers that a training streams to: each on a loopback port and a folder of its own, ended with the block."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

_START_SECONDS: Final = 60
_SHOW: Final = (
    "import sys, trackio; "
    "trackio.show(open_browser=False, block_thread=True, host='127.0.0.1', share=False, server_port=int(sys.argv[1]))"
)


@dataclass(frozen=True, slots=True)
class Server:
    """Where it is, and what a training must have in its environment to be let in."""

    process: int
    url: str
    environment: Mapping[str, str]


@contextmanager
def running(
    kind: Literal["gradwatch", "trackio"], python: str, folder: Path, environment: Mapping[str, str]
) -> Iterator[Server]:
    """A server that keeps its data in ``folder``; ``python``: the peers' environment, where Trackio's runs."""
    log = folder.parent / "server.log"
    if kind == "gradwatch":
        said = {**environment, "GRADWATCH_DIR": str(folder)}
        with _process([sys.executable, "-m", "gradwatch.cli", "serve", "--port", "0"], said, log) as process:
            announced = folder / "server.json"
            _await(lambda: announced.exists(), process, log)
            yield Server(process.pid, json.loads(announced.read_text())["url"], {})
        return
    token = {"TRACKIO_WRITE_TOKEN": secrets.token_urlsafe(32)}
    port = _free_port()
    said = {**environment, **token, "TRACKIO_DIR": str(folder)}
    with _process([python, "-c", _SHOW, str(port)], said, log) as process:
        url = f"http://127.0.0.1:{port}"
        _await(lambda: _answers(f"{url}/version"), process, log)
        # A training must not find the server's database by itself, or it would not need the server.
        yield Server(process.pid, url, {**token, "TRACKIO_DIR": str(folder.parent / "client")})


@contextmanager
def _process(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
