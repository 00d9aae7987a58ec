"""The pages' pure modules, tested by node where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from gradwatch.frames import Kind


def test_the_pure_modules() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the browser tests alone check the modules here")
    files = sorted(map(str, Path(__file__).parent.glob("*.test.js")))
    assert files
    done = subprocess.run([node, "--test", *files], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_sides_number_the_kinds_of_frames_alike() -> None:
    text = (Path(__file__).parents[2] / "static" / "scripts" / "frames.js").read_text()
    block = text.split("Kind = Object.freeze({")[1].split("}")[0]
    assert {name: int(number) for name, number in re.findall(r"(\w+): (\d+),", block)} == {
        kind.name: int(kind) for kind in Kind
    }
