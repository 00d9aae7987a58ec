"""The state in a trainer's checkpoint: taken up by the same clipping, left by another."""

from __future__ import annotations

import json
from typing import Any

import gradwatch
import pytest
from gradwatch.integrations.checkpoint import Kept
from gradwatch.monitor import Monitor
from torch import nn

from tests.client_hook.conftest import KeepingSink, monitor_of


def kept(clip: Any) -> tuple[Monitor, Kept]:
    monitor = monitor_of(nn.Linear(1, 1), [], clip, KeepingSink())
    return monitor, Kept(monitor)


def test_step_and_a_threshold_turned_while_training_are_taken_up() -> None:
    monitor, state = kept(gradwatch.GlobalNorm(1.0))
    monitor.clip()
    monitor.threshold = 0.25
    resumed, again = kept(gradwatch.GlobalNorm(1.0))
    again.load(json.loads(json.dumps(state.save())))
    assert (resumed.step, resumed.threshold) == (1, 0.25)


@pytest.mark.parametrize("clip", [gradwatch.GlobalNorm(2.0), gradwatch.Value(2.0)])
def test_another_clipping_takes_up_the_step_alone_and_says_so(clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monitor, state = kept(gradwatch.GlobalNorm(1.0))
    monitor.clip()
    resumed, again = kept(clip)
    again.load(state.save())
    assert (resumed.step, resumed.threshold) == (1, 2.0)
    said = capsys.readouterr().err
    assert "the checkpoint was clipped by" in said and "1.0" in said and "2.0" in said
