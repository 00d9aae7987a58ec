"""Which of a library's metrics become series."""

from __future__ import annotations

import torch
from gradwatch.integrations.metrics import loggable


def test_numbers_become_series_and_everything_else_is_left_out() -> None:
    metrics = {
        "accuracy": 0.5,
        "samples": 3,
        "tensor": torch.tensor([0.25]),
        "done": True,
        "words": "many",
        "histogram": torch.ones(3),
        "phase": torch.tensor(1j),
        "nothing": None,
    }
    assert loggable(metrics, "p ") == {"accuracy": 0.5, "samples": 3, "tensor": torch.tensor([0.25])}


def test_names_of_gradwatchs_own_series_are_told_apart() -> None:
    assert loggable({"loss": 1.0, "total_norm": 2.0, "val_loss": 3.0}, "validation ") == {
        "validation loss": 1.0, "validation total_norm": 2.0, "val_loss": 3.0,
    }  # fmt: skip
