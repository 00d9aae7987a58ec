"""Global random numbers go on as if nothing had been, whatever is drawn in between."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from gradwatch.probe.random_state import RandomState, devices_of, random_numbers_of


def draw() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_what_is_drawn_within_is_of_the_seed_and_leaves_no_trace() -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    undisturbed = [draw(), draw()]
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    found = [draw()]
    within = []
    for seed in (5, 5, 6):
        with random_numbers_of(seed, []):
            within.append(draw())
    found.append(draw())
    assert found == undisturbed
    assert within[0] == within[1] != within[2]


def test_an_error_within_restores_as_well() -> None:
    before = RandomState([])
    with pytest.raises(KeyError), random_numbers_of(0, []):
        draw()
        raise KeyError
    assert RandomState([]) == before


def test_states_differ_once_anything_is_drawn() -> None:
    for one in (lambda: torch.rand(1), lambda: np.random.rand(), random.random, lambda: np.random.standard_normal()):
        before = RandomState([])
        one()
        assert RandomState([]) != before


def test_no_seed_is_left_behind_for_devices_not_in_use() -> None:
    # torch.manual_seed would queue one for CUDA, to be set whenever that is first used.
    queued = len(torch.cuda._queued_calls)
    with random_numbers_of(0, [torch.device("cpu")]):
        draw()
    assert len(torch.cuda._queued_calls) == queued


def test_each_device_counts_once() -> None:
    assert devices_of([torch.zeros(1), torch.zeros(2)]) == [torch.device("cpu")]
