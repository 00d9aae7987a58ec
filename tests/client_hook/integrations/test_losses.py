"""The loss of a step out of its backward passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradwatch.integrations.losses import Losses


def test_losses_add_up_until_they_are_taken() -> None:
    losses = Losses()
    assert losses.take() is None
    for value in (1.0, 2.5):
        losses.add(torch.tensor([value], requires_grad=True))
    taken = losses.take()
    assert taken is not None and taken.shape == () and not taken.requires_grad and taken.item() == 3.5
    assert losses.take() is None


def test_what_was_scaled_or_will_be_divided_is_told_as_it_is() -> None:
    losses, scaler = Losses(), torch.amp.GradScaler("cpu", init_scale=4096.0)
    losses.add(scaler.scale(torch.tensor(0.3)), scaler)
    losses.add(torch.tensor(0.6), divisor=2)
    taken = losses.take()
    assert taken is not None and taken.item() == pytest.approx(0.6, rel=1e-6)


def test_half_precision_does_not_overflow_by_its_scale() -> None:
    losses, scaler = Losses(), torch.amp.GradScaler("cpu", init_scale=65536.0)
    losses.add(scaler.scale(torch.tensor(3.0, dtype=torch.float16)), scaler)
    taken = losses.take()
    assert taken is not None and taken.item() == 3.0


def test_the_callers_tensor_stays_as_it_is() -> None:
    losses, loss = Losses(), torch.tensor(1.0)
    losses.add(loss)
    losses.add(torch.tensor(2.0))
    assert loss.item() == 1.0


@pytest.mark.parametrize("odd", [None, torch.ones(3), {"loss": 1.0}])
def test_what_is_no_single_number_is_left_out(odd: Any) -> None:
    losses = Losses()
    losses.add(odd)
    assert losses.take() is None
