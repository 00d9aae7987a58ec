"""Every benchmark of the store runs, with sizes of seconds, and prints the numbers that it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import clean_environment

ROOT = Path(__file__).parent.parent


def numbers(tmp_path: Path, name: str, *arguments: str) -> dict[str, list[float]]:
    """The lines of a benchmark: what stands before two blanks and a number, and its numbers."""
    environment = clean_environment(tmp_path)
    environment["PYTHONPATH"] = ":".join(map(str, (ROOT, ROOT / "client_hook", ROOT / "server")))
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert re.search(r"\d+ cores, .*load average", ended.stderr)
    found = {}
    for line in ended.stdout.splitlines():
        if match := re.match(r"(\S.*?) {2,}(-?[\d.]+(?: .*)?)$", line):
            found[match[1]] = [float(number) for number in re.findall(r"(?<!\S)-?\d+(?:\.\d+)?(?!\S)", match[2])]
    return found


def test_ingest(tmp_path: Path) -> None:
    found = numbers(tmp_path, "ingest", "--steps", "256", "--layers", "64", "--writers", "2", "--repeats", "1")
    points, rate, durable, *_, size = found.pop("gradwatch, 2 writers")
    assert points == 2 * 256 * 64 and 0 <= rate <= durable and size > 1 and not found


def test_query(tmp_path: Path) -> None:
    sizes = ["--steps", "4000", "--layers", "8", "--queries", "3", "--cold", "0"]
    found = numbers(tmp_path, "query", *sizes, "--keep", str(tmp_path / "kept"))
    kinds = {f"{kind}, {part}" for kind in ("layers", "one series") for part in ("the whole run", "1/4 of it")}
    assert set(found) == kinds | {"raw zoom, layers", "raw zoom, one series"}
    assert (tmp_path / "kept" / "query-4000-8" / "filled").exists()


def test_disk(tmp_path: Path) -> None:
    sizes = ["--steps", "64", "--layers", "64", "--copies", "1", "--models", "convolutions"]
    found = numbers(tmp_path, "disk", *sizes, "--folder", str(tmp_path / "norms"))
    layers, steps, tiles, pyramid, rest, whole, _, _ = found["convolutions"]
    assert (layers, steps) == (14, 64) and whole == pytest.approx(tiles + pyramid + rest, abs=0.03) and tiles > 1
    (recorded,) = (tmp_path / "norms").iterdir()
    assert recorded.stat().st_size == 128 + 4 * 14 * 64


def test_latency(tmp_path: Path) -> None:
    sizes = [
        "--runs",
        "4",
        "--layers",
        "16",
        "--watched",
        "2",
        "--seconds",
        "2",
        "--warm-up",
        "0.5",
        "--processes",
        "1",
    ]
    found = numbers(tmp_path, "latency", *sizes)
    assert [line[0] for line in found.values()] == [30, 30, 30]
    for _, middle, slow, worst in found.values():
        assert 0 < middle <= slow <= worst < 60_000
