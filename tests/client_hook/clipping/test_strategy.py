"""No strategy waits for a device: under FakeTensorMode on "cuda" every read of a value raises."""

from __future__ import annotations

import copy
import json

import gradwatch
import pytest
import torch
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.measure_only import MeasureOnly
from gradwatch.clipping.strategy import Strategy
from gradwatch.clipping.value import Value
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tests.client_hook.clipping.stepping import clip

STRATEGIES = [
    GlobalNorm(1.0),
    GlobalNorm(1.0, 1.0),
    GlobalNorm(1.0, float("inf")),
    Value(1.0),
    MeasureOnly(),
    gradwatch.PerLayer(1.0),
    gradwatch.PerGroup(1.0),
    gradwatch.AGC(),
    gradwatch.AutoClip(),
    gradwatch.ZClip(),
    gradwatch.AdaGC(),
    gradwatch.EMARatio(),
    gradwatch.SkipSpikes(),
    gradwatch.Normalize(),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: str(strategy.describe()))
def test_no_strategy_reads_a_value_from_a_device(strategy: Strategy) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        measurement, _ = clip(
            copy.deepcopy(strategy), [torch.empty(3, 4, device="cuda"), torch.empty(7, device="cuda")]
        )
        assert measurement.norms.device.type == measurement.total.device.type == "cuda"
        assert measurement.norms.shape == (2,)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: str(strategy.describe()))
def test_what_is_said_and_saved_is_json_and_loads_again(strategy: Strategy) -> None:
    strategy = copy.deepcopy(strategy)
    clip(strategy, [torch.ones(3, 4), torch.ones(7)])
    said, saved = strategy.describe(), strategy.state_dict()
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    strategy.load_state_dict(json.loads(json.dumps(saved)))
    assert strategy.state_dict() == saved
    assert strategy.threshold_of in ("total norm", "layer", "group", "unit", "element", "nothing")


def test_every_public_strategy_is_tried_here() -> None:
    public = {name for name in gradwatch.__all__ if isinstance(getattr(gradwatch, name), type)}
    strategies = {name for name in public if issubclass(getattr(gradwatch, name), Strategy)} - {"Strategy"}
    assert strategies == {type(strategy).__name__ for strategy in STRATEGIES} - {"MeasureOnly"}


def test_the_check_above_can_fail() -> None:
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.empty((), device="cuda").item()
