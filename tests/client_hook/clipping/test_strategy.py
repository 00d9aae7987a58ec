"""No strategy waits for a device: under FakeTensorMode on "cuda" every read of a value raises."""

from __future__ import annotations

import pytest
import torch
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.measure_only import MeasureOnly
from gradwatch.clipping.strategy import Strategy
from gradwatch.clipping.value import Value
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tests.client_hook.clipping.stepping import clip

STRATEGIES = [GlobalNorm(1.0), GlobalNorm(1.0, 1.0), GlobalNorm(1.0, float("inf")), Value(1.0), MeasureOnly()]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: str(strategy.describe()))
def test_no_strategy_reads_a_value_from_a_device(strategy: Strategy) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        measurement, _ = clip(strategy, [torch.empty(3, 4, device="cuda"), torch.empty(7, device="cuda")])
        assert measurement.norms.device.type == measurement.total.device.type == "cuda"
        assert measurement.norms.shape == (2,)


def test_the_check_above_can_fail() -> None:
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.empty((), device="cuda").item()
