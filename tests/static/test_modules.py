"""The pages' pure modules, tested by node where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def test_the_pure_modules() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the browser tests alone check the modules here")
    files = sorted(map(str, Path(__file__).parent.glob("*.test.js")))
    assert files
    done = subprocess.run([node, "--test", *files], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
