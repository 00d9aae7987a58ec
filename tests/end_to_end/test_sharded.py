"""A model sharded over two processes: every rank clips by the norm of the whole gradient."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(120)
def test_ranks_clip_alike_and_by_the_true_norm(tmp_path: Path) -> None:
    script = Path(__file__).with_name("sharded_clip.py")
    ended = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr[-2000:]
    said = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert said[0] == said[1]
    assert said[0]["total"] == pytest.approx(said[0]["expected"], rel=1e-6) and said[0]["expected"] > 0.5
    assert said[0]["largest difference"] < 1e-7
