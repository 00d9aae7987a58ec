"""Every script in examples/ runs as it stands, and leaves the runs that it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.client_hook.integrations.recorded import recorded
from tests.processes import clean_environment

ROOT = Path(__file__).parent.parent
# Script, arguments, steps of each of its runs.
RUNS = {
    "plain_loop": ([], [3]),
    "lightning_trainer": ([], [3]),
    "transformers_trainer": ([], [3]),
    "accelerate_loop": ([], [3]),
    "optuna_thresholds": (["--trials", "2"], [3, 3]),
    "compare_strategies": ([], [3] * 12),
}


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    arguments, steps = RUNS[name]
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), "--steps", "3", *arguments]
    environment = clean_environment(tmp_path / "gradwatch", GRADWATCH_MODE="offline", OMP_NUM_THREADS="1")
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert ended.returncode == 0, ended.stderr[-3000:]
    runs = recorded(tmp_path / "gradwatch")
    assert [len(run.steps) for run in runs] == steps
    assert all(run.finish["state"] == "finished" and run.hello["project"] == "examples" for run in runs)
    assert "loss" in ended.stdout
