"""One training of one contender, from an empty folder to what it left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.contenders import Contender
from benchmarks.peers.environment import ROOT, clean
from benchmarks.peers.servers import running

WARM_UP: Final = 0.1  # of the steps; their times are left out
# Nothing may leave the machine, look for a newer version or ask.
ALONE: Final = {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "no_proxy": "127.0.0.1,localhost",
}


@dataclass(frozen=True, slots=True)
class Run:
    """What one training measured. Times in milliseconds, CPU in seconds, without the set-up."""

    contender: Contender
    times: list[float]
    cpu: float
    beside: float
    finishing: float
    bytes: int
    tensors: int
    weights: str
    stored: dict[str, Any]
    versions: dict[str, str]
    parameters: int

    @property
    def steps(self) -> list[float]:
        """Milliseconds of the steps after the warm-up."""
        return self.times[int(len(self.times) * WARM_UP) :]


def end_by_terminating() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that what it started ends, too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def train(contender: Contender, python: str, steps: int) -> Run:
    """Train ``contender`` in a process of its own by the interpreter ``python``, beside its server if it has one."""
    with tempfile.TemporaryDirectory(prefix="gradwatch-peers-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "kept"
        folder.mkdir()
        settings = {**clean(os.environ), **ALONE, "PYTHONPATH": f"{ROOT}:{ROOT / 'client_hook'}:{ROOT / 'server'}"}
        settings |= {"GRADWATCH_DIR": str(folder), "TRACKIO_DIR": str(folder), "HOME": name}
        with ExitStack() as stack:
            extra: list[str] = []
            if contender.server:
                server = stack.enter_context(running(contender.server, python, folder, settings))
                settings |= server.environment
                extra = ["--server", str(server.process), "--url", server.url]
            found = _measure(
                [python, "-m", "benchmarks.peers.training", contender.key, str(folder)], extra, steps, settings
            )
        found["times"] = found.pop("milliseconds")
        # After the server has ended, so that SQLite has folded its log into the database.
        return Run(contender, bytes=kept_bytes(folder), **found)


def kept_bytes(folder: Path) -> int:
    """Of all files, but for SQLite's shared memory, which is no data and may be deleted."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return sum(file.stat().st_size for file in files if not file.name.endswith("-shm"))


def _measure(command: list[str], extra: list[str], steps: int, settings: dict[str, str]) -> dict[str, Any]:
    work = Path(settings["HOME"])
    out, log = work / "measured.json", work / "training.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--steps", str(steps), "--out", str(out), *extra],
            env=settings,
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # so that its own service processes can be ended with it
        )
    try:
        code = process.wait(300 + steps)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if code or not out.exists():
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text(errors='replace')[-3000:]}")
    found: dict[str, Any] = json.loads(out.read_text())
    return found
