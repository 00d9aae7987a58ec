"""Rows between the training thread and the thread that takes them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from gradwatch import recorder
from gradwatch.recorder import MISSING, SCALARS, Recorder


def write(kept: Recorder, step: int) -> None:
    scalars = tuple(float(step * 10 + place) for place in range(len(SCALARS)))
    kept.write(step, scalars, torch.full((kept.layers,), float(step)), None)


def test_rows_come_out_as_they_went_in_and_once() -> None:
    kept = Recorder(3)
    for step in range(1300):
        write(kept, step)
    taken = list(kept.take(64))
    assert max(len(rows.step) for rows in taken) <= 64
    assert np.concatenate([rows.step for rows in taken]).tolist() == list(range(1300))
    assert taken[0].scalars[1].tolist() == [10 + place for place in range(len(SCALARS))]
    assert np.concatenate([rows.norms for rows in taken])[1299].tolist() == [1299.0] * 3
    assert list(kept.take(64)) == [] and kept.empty


def test_norms_are_copied() -> None:
    kept, norms = Recorder(2), torch.ones(2)
    kept.write(0, (0.0,) * len(SCALARS), norms, None)
    norms.zero_()
    assert next(kept.take(1)).norms.tolist() == [[1.0, 1.0]]


def test_absent_layers_and_missing_scalars_are_kept_apart_from_nan() -> None:
    kept = Recorder(9)
    scalars = (MISSING, float("nan"), *([1.0] * (len(SCALARS) - 2)))
    kept.write(0, scalars, torch.zeros(9), np.packbits([0] * 8 + [1], bitorder="little"))
    rows = next(kept.take(1))
    assert rows.absent.tolist() == [[0, 1]]
    payload = rows.scalars[0].view(np.uint64)
    assert payload[0] == 0x7FF80000_6D697373 != payload[1]
    assert np.isnan(rows.scalars[0, 1])


def test_two_threads_lose_nothing() -> None:
    kept, seen = Recorder(5), list[int]()
    stop = threading.Event()

    def take() -> None:
        while not stop.is_set() or not kept.empty:
            for rows in kept.take(100):
                assert (rows.norms == rows.step[:, None]).all()
                seen.extend(rows.step.tolist())

    taker = threading.Thread(target=take)
    taker.start()
    for step in range(20_000):
        write(kept, step)
    stop.set()
    taker.join(60)
    assert seen == list(range(20_000))


def test_when_memory_is_full_steps_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MEMORY_CAP", 1)
    kept = Recorder(4)
    for step in range(1100):
        write(kept, step)
    stored = sum(len(rows.step) for rows in kept.take(1000))
    dropped = kept.take_dropped()
    assert stored + len(dropped) == 1100 and dropped == list(range(stored, 1100))
    assert kept.take_dropped() == []
