"""Python, torch and the gradwatch that is installed."""

from __future__ import annotations

import platform
import sys
import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import gradwatch
from gradwatch.health import Check

OLDEST_PYTHON: Final = (3, 11)
OLDEST_TORCH: Final = (2, 6)


def check_machine() -> list[Check]:
    return [check_python(), check_gradwatch(), check_torch()]


def check_python(running: tuple[int, ...] = sys.version_info[:2]) -> Check:
    text = f"Python {platform.python_version()} on {platform.system()}"
    if running[:2] < OLDEST_PYTHON:
        return Check("python", "fail", text, f"gradwatch needs Python {_dotted(OLDEST_PYTHON)} or newer")
    return Check("python", "ok", text)


def check_gradwatch() -> Check:
    text = f"gradwatch {gradwatch.__version__}"
    try:
        installed = version("gradwatch")
    except PackageNotFoundError:
        return Check("gradwatch", "warn", f"{text}, not installed as a package", "pip install gradwatch")
    if installed != gradwatch.__version__:
        other = f"{text} is imported, but {installed} is installed"
        return Check("gradwatch", "warn", other, "pip install --force-reinstall gradwatch, or remove the other copy")
    return Check("gradwatch", "ok", text)


def check_torch(name: str = "torch") -> Check:
    """Imports torch, which takes a second or two, because only torch itself knows whether it sees a GPU."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch = import_module(name)
            found = str(torch.__version__)
            seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    except ModuleNotFoundError as error:
        if error.name == name:
            advice = "to train on this machine: pip install 'gradwatch[torch]'; a server and `gradwatch sync` need none"
            return Check("torch", "warn", "torch is not installed", advice)
        return Check("torch", "fail", f"torch cannot be imported: {error}", "reinstall torch")
    except Exception as error:
        return Check("torch", "fail", f"torch cannot be imported: {error}", "reinstall torch")
    if _numbers(found) < OLDEST_TORCH:
        return Check("torch", "fail", f"torch {found}", f"gradwatch needs torch {_dotted(OLDEST_TORCH)} or newer")
    return _with_device(torch, f"torch {found}", seen, [str(warning.message) for warning in said])


def _with_device(torch: Any, text: str, seen: int, said: list[str]) -> Check:
    built_for = torch.version.cuda or getattr(torch.version, "hip", None)
    if seen:
        more = f" and {seen - 1} more" if seen > 1 else ""
        return Check("torch", "ok", f"{text}, sees {torch.cuda.get_device_name(0)}{more}")
    if built_for:
        why = next((line for line in said if "CUDA" in line), "").partition("(")[0].strip()
        advice = "trainings run on the CPU; if there is a GPU, see what `nvidia-smi` says of its driver"
        return Check("torch", "warn", f"{text}, built for CUDA {built_for}, sees no GPU", f"{advice}. {why}".strip())
    return Check("torch", "ok", f"{text}, without CUDA: trainings run on the CPU")


def _numbers(found: str) -> tuple[int, ...]:
    parts = found.partition("+")[0].split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
