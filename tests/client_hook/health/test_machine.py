"""Python, torch and gradwatch: named with their versions, and what to do where they do not fit."""

from __future__ import annotations

import platform
from importlib import import_module
from pathlib import Path

import pytest
import torch
from gradwatch.health.machine import check_gradwatch, check_machine, check_python, check_torch


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> str:
    """The name of an importable module of ``code``."""
    name = f"imitation_{folder.name}".replace("-", "_")
    (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    return name


def test_what_runs_here_is_named_and_fits() -> None:
    python, gradwatch, found = check_machine()
    assert (python.state, gradwatch.state) == ("ok", "ok") and found.state != "fail"
    assert platform.python_version() in python.text and torch.__version__ in found.text
    assert import_module("gradwatch").__version__ in gradwatch.text


def test_an_old_python_fails() -> None:
    check = check_python((3, 10))
    assert check.state == "fail" and "3.11 or newer" in check.advice


def test_without_torch_there_is_a_warning_only() -> None:
    check = check_torch("torch_that_nobody_has")
    assert check.state == "warn" and "pip install 'gradwatch[torch]'" in check.advice


@pytest.mark.parametrize("code", ["raise OSError('libcudart.so is not there')", "import nothing_of_this_name"])
def test_a_torch_that_does_not_load_fails_with_its_reason(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = check_torch(made(tmp_path, monkeypatch, code))
    assert check.state == "fail" and ("libcudart.so" in check.text or "nothing_of_this_name" in check.text)


PARTS = """
from types import SimpleNamespace as Space
import warnings
__version__ = "{version}"
version = Space(cuda={cuda!r}, hip=None)
def count():
    warnings.warn("CUDA initialization: the driver is too old (found 1)")
    return {count}
cuda = Space(is_available=lambda: count() > 0, device_count=count, get_device_name=lambda place: "Tesla T0")
"""


@pytest.mark.parametrize(
    ("version", "cuda", "count", "state", "said"),
    [
        ("2.5.1+cu124", "12.4", 1, "fail", "2.6 or newer"),
        ("2.6.0+cpu", None, 0, "ok", "without CUDA"),
        ("2.10.0a0+git12", "12.4", 1, "ok", "Tesla T0"),
        ("2.13.0+cu126", "12.6", 3, "ok", "Tesla T0 and 2 more"),
        ("2.13.0+cu126", "12.6", 0, "warn", "the driver is too old"),
    ],
)
def test_version_and_devices_are_judged(
    version: str, cuda: str | None, count: int, state: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = check_torch(made(tmp_path, monkeypatch, PARTS.format(version=version, cuda=cuda, count=count)))
    assert check.state == state and said in check.text + check.advice


def test_another_version_than_the_installed_one_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwatch.__version__", "0.0.7")
    check = check_gradwatch()
    assert check.state == "warn" and "0.0.7" in check.text
