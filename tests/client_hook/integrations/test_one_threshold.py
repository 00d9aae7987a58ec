"""Who says the threshold; and that nothing is imported which was not asked for."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gradwatch
import pytest
from gradwatch.clipping.value import Value
from gradwatch.integrations.one_threshold import check_options, one_threshold

FRAMEWORKS = ("lightning", "pytorch_lightning", "transformers", "accelerate", "optuna")


def described(clip: Any) -> Any:
    return None if clip is None else clip.describe()


@pytest.mark.parametrize(
    ("clip", "trainers", "becomes"),
    [
        ("trainer", gradwatch.GlobalNorm(0.5), gradwatch.GlobalNorm(0.5)),
        ("trainer", Value(0.5), Value(0.5)),
        ("trainer", None, None),
        (0.5, gradwatch.GlobalNorm(0.5), gradwatch.GlobalNorm(0.5)),
        (1, None, gradwatch.GlobalNorm(1.0)),
        (Value(0.5), None, Value(0.5)),
        (Value(0.5), Value(0.5), Value(0.5)),
        (None, gradwatch.GlobalNorm(0.5), None),
    ],
)
def test_what_is_clipped_by(clip: Any, trainers: Any, becomes: Any) -> None:
    assert described(one_threshold(clip, trainers, "Trainer()")) == described(becomes)


@pytest.mark.parametrize("clip", [1.0, Value(0.5), gradwatch.GlobalNorm(0.5, norm_type=1)])
def test_two_thresholds_that_differ_are_refused(clip: Any) -> None:
    with pytest.raises(ValueError, match=r"two thresholds: Trainer\(\), and gradwatch's clip="):
        one_threshold(clip, gradwatch.GlobalNorm(0.5), "Trainer()")


@pytest.mark.parametrize(("clip", "error", "advice"), [("0.5", TypeError, '"trainer"'), (0.0, ValueError, "clip=None")])
def test_what_is_no_threshold_is_refused(clip: Any, error: type[Exception], advice: str) -> None:
    with pytest.raises(error, match=advice):
        one_threshold(clip, None, "Trainer()")


def test_options_are_those_of_watch() -> None:
    check_options({"project": "p", "config": {}, "nonfinite": "skip", "total_steps": 3})
    with pytest.raises(TypeError, match="treshold"):
        check_options({"treshold": 1})
    with pytest.raises(TypeError, match="model, optimizer: this is the integration's to say"):
        check_options({"optimizer": None, "model": None})


def test_gradwatch_alone_imports_no_framework() -> None:
    code = (
        "import sys, gradwatch, gradwatch.integrations; gradwatch.watch\n"
        f"print([name for name in {FRAMEWORKS} if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "[]", ended.stderr


ABSENT = """
import importlib, sys
class Absent:
    names = ()
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
for module, *Absent.names in (
    ("lightning", "lightning", "pytorch_lightning"), ("accelerate", "accelerate"),
    ("transformers", "transformers"), ("optuna", "optuna"),
):
    try:
        importlib.import_module(f"gradwatch.integrations.{module}")
    except ImportError as error:
        print(error)
"""


def test_a_missing_framework_is_named_with_what_to_install() -> None:
    ended = subprocess.run([sys.executable, "-c", ABSENT], capture_output=True, text=True, timeout=110)
    assert ended.stdout.splitlines() == [
        "gradwatch.integrations.lightning needs Lightning: pip install lightning",
        "gradwatch.integrations.accelerate needs Accelerate: pip install accelerate",
        "gradwatch.integrations.transformers needs Transformers: pip install 'transformers[torch]'",
        "gradwatch.integrations.optuna needs Optuna: pip install optuna",
    ], ended.stderr
