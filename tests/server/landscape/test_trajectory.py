from __future__ import annotations

import numpy as np
import pytest
from gradwatch_server.landscape import trajectory
from gradwatch_server.store.landscape_frames import ProbeRows
from numpy.typing import ArrayLike

from .pieces import piece


def path(steps: ArrayLike, offset: float = 0.0, k: int = 3, attempt: int = 1, seed: int = 0) -> ProbeRows:
    step = np.atleast_1d(np.asarray(steps))
    sketch = np.zeros((len(step), k), np.float32)
    sketch[:, 0], sketch[:, 1] = step, offset
    columns = {"step": step, "loss": step * 0.5, "norm": step * 1.0, "seconds": step * 0.0, "sketch": sketch}
    return piece("trajectory points", columns, attempt=attempt, seed=seed, parameters=9, k=k)


def steps_of(pieces: list[ProbeRows], until: dict[int, int], ends: bool = False) -> object:
    found = trajectory.snapshots(pieces, until, ends_only=ends)
    return None if found is None else found[0]["step"].tolist()


def test_rows_by_step_and_the_last_word_counts() -> None:
    found = trajectory.snapshots([path([5, 1]), path([3, 5], offset=2.0)], {}, ends_only=False)
    assert found is not None and found[0]["step"].tolist() == [1, 3, 5]
    assert found[0]["sketch"][:, 1].tolist() == [0, 2, 2] and found[1] == {"seed": 0, "parameters": 9, "k": 3}


def test_a_new_attempt_hides_what_it_did_again() -> None:
    pieces = [path([0, 10, 20, 30]), path([15, 25], attempt=2)]
    assert steps_of(pieces, {1: 14, 2: 10**9}) == [0, 10, 15, 25]
    assert steps_of([], {}) is None


def test_sketches_of_another_seed_or_width_are_not_compared_with_the_newest() -> None:
    assert steps_of([path([1, 2], seed=7), path([5], k=4), path([8, 9])], {}) == [8, 9]


def test_of_frames_read_sparsely_the_last_row_stands_for_each() -> None:
    assert steps_of([path([1, 2, 3]), path([7, 8, 9])], {}, ends=True) == [3, 9]
    assert steps_of([path([1, 2, 3]), path([7, 8, 9])], {1: 8}, ends=True) == [3, 8]


def test_the_map_is_thinned_and_leaves_out_weights_that_are_not_finite() -> None:
    rows = trajectory.snapshots([path(np.arange(1000))], {}, ends_only=False)
    assert rows is not None
    drawn = trajectory.draw(*rows, 400)
    assert len(drawn.step) == 251 and drawn.step[:3].tolist() == [0, 4, 8] and drawn.step[-1] == 999
    assert (drawn.loss == drawn.step * 0.5).all() and list(drawn.plane.explained or ()) == pytest.approx([1, 0])
    assert drawn.plane.x[-1] - drawn.plane.x[0] == pytest.approx(999)
    rows[0]["sketch"][-1, 0] = np.inf
    lost = trajectory.draw(*rows, 400)
    assert (lost.lost, len(lost.step), len(lost.plane.x)) == (1, 250, 250) and lost.step[-1] == 996
    rows[0]["sketch"][:] = np.nan
    assert trajectory.draw(*rows, 400).lost == 251
