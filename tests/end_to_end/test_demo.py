"""``gradwatch demo``: from a wheel outside any checkout, and what its two trainings must show."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import httpx
import pytest

from tests.processes import Process, ServerProcess, clean_environment

ROOT = Path(__file__).parent.parent.parent
STEPS = 300


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and installed into an environment of its own; its ``bin`` folder.

    Its dependencies come from this environment by path, because no test may need the internet. A path file adds no
    editable installs, so the checkout stays invisible.
    """
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("gradwatch-*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    target = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    Path(target, "dependencies.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    return folder / "venv" / ("Scripts" if os.name == "nt" else "bin")


def demo(python: Path, directory: Path, *arguments: str) -> Process:
    """The demo, beside settings of the user's own that it must not follow."""
    command = [str(python), "-m", "gradwatch.cli", "demo", "--no-browser", *arguments]
    directory.mkdir(exist_ok=True)
    others = {"GRADWATCH_DATABASE": str(directory / "team.db"), "GRADWATCH_TOKEN": "short", "GRADWATCH_MODE": "offline"}
    return Process(command, clean_environment(directory, PYTHONPATH="", **others), directory / "demo.log")


@pytest.mark.timeout(300)
def test_only_the_unclipped_training_diverges_and_raises_the_alert(installed: Path, tmp_path: Path) -> None:
    with demo(installed / "python", tmp_path, "--once", "--steps", str(STEPS)) as running:
        assert running.wait(240) == 0, running.output
    where = subprocess.run(
        [installed / "python", "-c", "import gradwatch, gradwatch_server; print(gradwatch.__file__)"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    ).stdout  # fmt: skip
    assert str(installed.parent) in where, "the demo did not come from the wheel"
    assert list((tmp_path / "demo" / "spool").iterdir()) == [] and not (tmp_path / "team.db").exists()
    with ServerProcess(tmp_path / "demo") as server:
        runs = {run["name"]: run for run in server.get("/api/runs")["runs"]}
        assert {name: (run["state"], run["last_step"]) for name, run in runs.items()} == {
            "clipped at 0.5": ("finished", STEPS - 1),
            "not clipped": ("finished", STEPS - 1),
        }
        losses = {name: server.raw_series(run["id"], ["loss"])["loss"] for name, run in runs.items()}
        first = losses["not clipped"][0]
        assert losses["clipped at 0.5"][0] == first
        assert sum(losses["clipped at 0.5"][-10:]) / 10 < 2.5
        assert sum(losses["not clipped"][-10:]) / 10 > 2 * first
        for run in runs.values():
            landscape = server.get(f"/api/runs/{run['id']}/landscape")
            assert landscape["tape"]["count"] > 3 and landscape["surface"]["computed"] >= 25
            assert landscape["trajectory"]["snapshots"] > 10
        alerts = server.get("/api/alerts")["alerts"]
        assert {alert["run"] for alert in alerts if alert["rule"] == "explosion"} == {runs["not clipped"]["id"]}
        assert all(alert["run"] == runs["not clipped"]["id"] for alert in alerts)


@pytest.mark.timeout(120)
def test_the_wheels_server_finds_its_page_outside_any_checkout(installed: Path, tmp_path: Path) -> None:
    command = [str(installed / "python"), "-m", "gradwatch.cli", "serve"]
    with ServerProcess(tmp_path, "--port", "0", command=command, PYTHONPATH="") as server:
        for path in ("/", "/static/scripts/main.js", "/static/styles/base.css", "/static/plotly.min.js"):
            assert httpx.get(server.url + path).status_code == 200, path


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_of_it(number: signal.Signals, tmp_path: Path) -> None:
    with demo(Path(sys.executable), tmp_path, "--steps", "100000") as running:
        announced = tmp_path / "demo" / "server.json"
        until = time.monotonic() + 60
        while not (announced.exists() and "watch it at" in running.output):
            assert running.popen.poll() is None and time.monotonic() < until, running.output
            time.sleep(0.05)
        url = json.loads(announced.read_text())["url"]
        children = _children(running.popen.pid)
        assert len(children) == 3
        assert running.end(number) == 0, running.output
    assert "Traceback" not in running.output
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_wrong_option_is_told_in_one_line(tmp_path: Path) -> None:
    with demo(Path(sys.executable), tmp_path, "--steps", "none") as running:
        assert running.wait(60) == 2
    assert "Invalid value for '--steps'" in running.output and "Traceback" not in running.output
