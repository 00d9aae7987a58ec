"""The ring on the device, run on CPU tensors: what it queues there is the same on every device."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from gradwatch.device_recorder import DeviceRecorder
from gradwatch.recorder import MISSING, SCALARS, Rows

LAYERS = 3
CPU = torch.device("cpu")


def scalars(step: int) -> list[Any]:
    """The loss on the host, the total norm and the clip event on the device."""
    known: list[Any] = [float(step + place / 16) for place in range(len(SCALARS))]
    known[SCALARS.index("total_norm")] = torch.tensor(step + 0.5)
    known[SCALARS.index("clipped")] = torch.tensor(step % 2 == 1)
    return known


def write(kept: DeviceRecorder, step: int) -> None:
    kept.write(step, scalars(step), torch.full((LAYERS,), float(step)), None)


def joined(kept: DeviceRecorder, most: int = 64) -> Rows | None:
    pieces = list(kept.take(most))
    if not pieces:
        return None
    parts = [[getattr(piece, name) for piece in pieces] for name in Rows.__slots__]
    return Rows(*[np.concatenate(part) for part in parts])


def test_rows_come_out_as_they_went_in_and_once() -> None:
    kept = DeviceRecorder(LAYERS, torch.float32, CPU)
    for first in (0, 40, 100):
        for step in range(first, first + 40):
            write(kept, step)
        rows = joined(kept)
        assert rows is not None
        assert rows.step.tolist() == list(range(first, first + 40))
        assert rows.norms.tolist() == [[float(step)] * LAYERS for step in range(first, first + 40)]
        assert rows.scalars[1].tolist() == [float(scalar) for scalar in scalars(first + 1)]
    assert kept.empty and joined(kept) is None and kept.take_dropped() == []


def test_a_replayed_graph_writes_every_step_into_a_row_of_its_own() -> None:
    kept = DeviceRecorder(LAYERS, torch.float32, CPU)
    for step in range(3):
        write(kept, step)
    # As in a capture: Python notes the step, its kernels run at each replay only.
    captured = scalars(3)
    on_device = [scalar for scalar in captured if isinstance(scalar, torch.Tensor)]
    queue = kept.queue
    kept.queue = lambda *arguments: None  # type: ignore[method-assign]
    kept.write(3, captured, torch.zeros(LAYERS), None, captured=True)
    kept.queue = queue  # type: ignore[method-assign]
    for replay in range(5):
        on_device[0].fill_(100.0 + replay)
        kept.queue(torch.full((LAYERS,), 7.0 + replay), on_device, -1.0)
    write(kept, 4)
    rows = joined(kept)
    assert rows is not None
    assert rows.step.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert rows.scalars[3:8, SCALARS.index("total_norm")].tolist() == [100.0, 101.0, 102.0, 103.0, 104.0]
    assert rows.scalars[3:8, SCALARS.index("loss")].tolist() == [3.0] * 5
    assert rows.norms[3:, 0].tolist() == [7.0, 8.0, 9.0, 10.0, 11.0, 4.0]


def test_overwritten_rows_are_counted_and_named() -> None:
    kept = DeviceRecorder(LAYERS, torch.float32, CPU)
    steps = kept.capacity + 10
    for step in range(steps):
        write(kept, step)
    rows = joined(kept)
    assert rows is not None
    dropped = kept.take_dropped()
    assert dropped + rows.step.tolist() == list(range(steps)) and len(dropped) == 11
    assert (rows.norms == rows.step[:, None]).all()


def test_absent_layers_and_missing_scalars_are_kept_apart_from_nan() -> None:
    kept = DeviceRecorder(9, torch.float32, CPU)
    given: list[Any] = [MISSING, torch.tensor(float("nan")), *([1.0] * (len(SCALARS) - 2))]
    kept.write(0, given, torch.zeros(9), np.packbits([0] * 8 + [1], bitorder="little"))
    rows = joined(kept)
    assert rows is not None
    assert rows.absent.tolist() == [[0, 1]]
    assert rows.scalars[0].view(np.uint64)[0] == 0x7FF80000_6D697373 != rows.scalars[0].view(np.uint64)[1]
    assert np.isnan(rows.scalars[0, 1])


def test_a_step_whose_queueing_failed_does_not_shift_the_others() -> None:
    kept = DeviceRecorder(LAYERS, torch.float32, CPU)
    write(kept, 0)
    with pytest.raises(RuntimeError):
        kept.write(1, scalars(1), torch.zeros(LAYERS + 1000), None)
    write(kept, 2)
    rows = joined(kept)
    assert rows is not None and rows.step.tolist() == [0, 2] and rows.scalars[1, 0] == 2.0


def test_two_threads_lose_nothing() -> None:
    kept, seen = DeviceRecorder(LAYERS, torch.float32, CPU), list[int]()
    stop = threading.Event()

    def take() -> None:
        while not stop.is_set() or not kept.empty:
            for rows in kept.take(100):
                assert (rows.norms == rows.step[:, None]).all()
                seen.extend(rows.step.tolist())

    taker = threading.Thread(target=take)
    taker.start()
    for step in range(2000):
        write(kept, step)
    stop.set()
    taker.join(30)
    assert sorted(seen + kept.take_dropped()) == list(range(2000)) and len(seen) > 1000


def test_a_failed_last_step_leaves_the_recorder_empty() -> None:
    kept = DeviceRecorder(LAYERS, torch.float32, CPU)
    write(kept, 0)
    assert joined(kept) is not None
    with pytest.raises(RuntimeError):
        kept.write(1, scalars(1), torch.zeros(LAYERS + 1000), None)
    assert kept.empty


def test_overwritten_replays_take_no_later_step_along() -> None:
    kept = DeviceRecorder(LAYERS, torch.float32, CPU)
    write(kept, 0)
    queue = kept.queue
    kept.queue = lambda *arguments: None  # type: ignore[method-assign]
    kept.write(1, scalars(1), torch.zeros(LAYERS), None, captured=True)
    kept.queue = queue  # type: ignore[method-assign]
    on_device = [scalar for scalar in scalars(1) if isinstance(scalar, torch.Tensor)]
    replays = kept.capacity + 5
    for _ in range(replays):
        kept.queue(torch.zeros(LAYERS), on_device, -1.0)
    write(kept, 2)
    rows = joined(kept)
    assert rows is not None
    assert kept.take_dropped() + rows.step.tolist() == list(range(replays + 2))
    assert rows.scalars[-1].tolist() == [float(scalar) for scalar in scalars(2)]
