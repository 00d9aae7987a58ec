"""A threshold: numbers, schedules, and schedules that fail in mid-training."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from gradwatch.clipping.threshold import Threshold


def test_a_number_holds_at_every_step_until_it_is_set() -> None:
    threshold = Threshold("max_norm", 1)
    assert (threshold.at(0), threshold.at(10**6), threshold.value) == (1.0, 1.0, 1.0)
    threshold.set(2.5)
    assert threshold.at(3) == 2.5


def test_a_schedule_is_asked_at_every_step() -> None:
    threshold = Threshold("max_norm", lambda step: np.float32(1.0 + step).item())
    assert threshold.value == 1.0
    assert [threshold.at(step) for step in (5, 2)] == [6.0, 3.0] and threshold.value == 3.0
    threshold.set(0.5)
    assert threshold.at(7) == 0.5


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, "many", None, True])
def test_a_schedule_that_fails_leaves_the_last_value_and_says_so_once(
    bad: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    threshold = Threshold("max_norm", lambda step: 4.0 if step < 2 else bad)
    assert [threshold.at(step) for step in range(5)] == [4.0] * 5
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "step 2: the schedule of max_norm failed" in lines[0] and "4.0 stays" in lines[0]


def test_a_schedule_that_raises_does_not_end_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    threshold = Threshold("cap", lambda step: 1 / (3 - step))
    assert threshold.at(3) == 1 / 3 and "division by zero" in capsys.readouterr().err
    assert threshold.at(2) == 1.0


@pytest.mark.parametrize("value", [0, -0.5, math.nan, -math.inf, np.float64("nan"), lambda step: 0.0])
def test_what_is_not_above_zero_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="max_norm must be above 0, not .*: write clip=None"):
        Threshold("max_norm", value)


@pytest.mark.parametrize("value", [True, None, "one", [1.0], 1j])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cap must be a number or a function of the step"):
        Threshold("cap", value)
    threshold = Threshold("cap", 1.0)
    with pytest.raises(TypeError, match="cap must be"):
        threshold.set(value)
    assert threshold.value == 1.0


def test_the_advice_is_the_owners() -> None:
    with pytest.raises(ValueError, match="write cap=None"):
        Threshold("cap", 0, "write cap=None to have no cap")


def halving(step: int) -> float:
    return 8.0 * 0.5**step


def test_described_as_json() -> None:
    assert Threshold("cap", 2).describe() == 2.0
    assert Threshold("cap", math.inf).describe() == "inf"
    assert Threshold("cap", halving).describe() == "schedule halving"


def test_a_deep_copy_keeps_the_schedule_and_a_pickle_the_number() -> None:
    threshold = Threshold("cap", lambda step: halving(step))
    threshold.at(1)
    twin, pickled = copy.deepcopy(threshold), pickle.loads(pickle.dumps(threshold))
    assert (twin.value, twin.at(2)) == (4.0, 2.0)
    assert (pickled.value, pickled.at(2)) == (4.0, 4.0)
    twin.set(7.0)
    assert threshold.at(3) == 1.0
    with pytest.raises(ValueError, match="cap must be above 0"):
        pickled.set(-1)


@pytest.mark.parametrize("value", [0.25, math.inf])
def test_a_number_is_saved_and_loaded(value: float) -> None:
    saved = Threshold("cap", value).save()
    for fresh in (Threshold("cap", 3.0), Threshold("cap", halving)):
        fresh.load(saved)
        assert fresh.at(5) == value


def test_a_schedule_goes_on_after_a_checkpoint() -> None:
    """The script that resumes brings its schedule; a number out of the checkpoint would freeze it."""
    threshold = Threshold("cap", halving)
    threshold.at(1)
    assert threshold.save() is None
    fresh = Threshold("cap", halving)
    fresh.load(threshold.save())
    assert fresh.at(3) == 1.0
    number = Threshold("cap", 3.0)
    number.load(None)
    assert number.at(3) == 3.0
