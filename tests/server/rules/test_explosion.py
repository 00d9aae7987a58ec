from __future__ import annotations

import json

import numpy as np
from gradwatch_server.rules import explosion
from gradwatch_server.rules.findings import Finding, Moment, Rows, State
from gradwatch_server.store.decode import MISSING, Layer
from numpy.typing import ArrayLike, NDArray

LAYERS = [Layer("a", (1,), 1, 0), Layer("b", (1,), 1, 1)]


def rows(total: NDArray[np.float64], loss: ArrayLike = MISSING, first: int = 0, skipped: ArrayLike = 0.0) -> Rows:
    count = len(total)
    losses = np.ascontiguousarray(np.broadcast_to(np.asarray(loss, float), count))
    given = losses.view(np.uint64) != MISSING.view(np.uint64)
    norms = np.stack([total / 10, total], axis=1)
    left_out = np.broadcast_to(np.asarray(skipped, float), count)
    steps = np.arange(first, first + count)
    return Rows(steps, np.zeros(count), losses, given, total, norms, None, LAYERS, left_out)


def judge(total: NDArray[np.float64], loss: ArrayLike = MISSING, cut: int = 50) -> tuple[list[Finding], list[Moment]]:
    state: State = {}
    found: dict[int, Finding] = {}
    moments: list[Moment] = []
    losses = np.broadcast_to(np.asarray(loss, float), len(total))
    for at in range(0, len(total), cut):
        part = rows(total[at : at + cut], losses[at : at + cut], at)
        state, findings, new = explosion.judge(json.loads(json.dumps(state)), part)
        found |= {finding.first_step: finding for finding in findings}
        moments += new
    return list(found.values()), moments


def noisy(count: int, spread: float = 0.5, seed: int = 0) -> NDArray[np.float64]:
    return np.exp(np.random.default_rng(seed).normal(0, spread, count))


def test_an_ordinary_training_and_its_single_spikes_raise_nothing() -> None:
    total = noisy(2000, 0.3)
    total[500::97] = 60.0
    found, moments = judge(total)
    assert found == []
    assert len(moments) == len(range(500, 2000, 97)) and moments[0].step == 500


def test_a_norm_that_stays_far_above_its_history_is_an_explosion() -> None:
    total = noisy(400)
    total[300:] *= 500
    (found,), _ = judge(total)
    assert 300 <= found.first_step <= 300 + explosion.SUSTAINED
    assert found.layers[0] == "b"
    assert f"step {found.first_step}" in found.title and "times its median" in found.text


def test_one_step_that_is_huge_is_enough() -> None:
    total = noisy(200, 0.1)
    total[150] = 1e6
    (found,), _ = judge(total)
    assert (found.first_step, found.last_step, found.count) == (150, 150, 1)


def test_a_loss_above_twice_its_beginning_with_a_risen_norm_is_an_explosion() -> None:
    steps = np.arange(200)
    loss = np.where(steps < 100, 4.0, 20.0)
    (found,), _ = judge(np.where(steps < 100, 1.0, 5.0), loss)
    assert 100 <= found.first_step < 110 and "twice its initial level" in found.text
    assert judge(np.ones(200), loss)[0] == []


def test_what_is_not_finite_or_zero_is_left_to_others() -> None:
    total = noisy(200, 0.1)
    total[100:150] = np.nan
    total[160:170] = 0
    assert judge(total)[0] == []


def test_over_a_short_history_only_what_is_huge_counts() -> None:
    assert judge(np.geomspace(1, 1e9, explosion.HUGE_HISTORY))[0] == []
    assert judge(np.geomspace(1, 1e3, explosion.LEAST_HISTORY - 1))[0] == []
    # One step of 1e16, as an unclipped recurrent net had it at its sixteenth.
    (found,), _ = judge(np.array([*[1.3, 5.0, 9.0] * 5, 1.7e16, 1.0, 1.0]))
    assert (found.first_step, found.count) == (15, 1)


# The beginning of the demo's two trainings: without clipping this recipe diverges within five steps.
DIVERGING_LOSS = [4.5, 3.8, 3.5, 10.5, 35.5, 9.6, 31.2, 26.5, 41.6, 46.6, 47.9, 75.9, 56.5, 53.3, 84.5, 92.2]
DIVERGING_NORM = [1.32, 0.56, 2.46, 9.87, 14.53, 4.82, 10.93, 8.83, 8.14, 7.31, 7.99, 15.37, 6.69, 7.37, 8.31, 7.48]
LEARNING_LOSS = [4.5, 3.8, 3.7, 3.6, 3.4, 3.3, 3.3, 3.2, 3.2, 3.1, 3.0, 3.1, 2.9, 3.0, 2.9, 2.8]
LEARNING_NORM = [1.32, 0.87, 3.79, 3.21, 2.33, 1.57, 1.16, 1.5, 1.46, 2.34, 1.03, 0.69, 0.62, 3.31, 1.36, 0.65]


def test_a_training_that_diverges_at_once_is_told_from_one_that_starts_wild() -> None:
    (found,), _ = judge(np.array(DIVERGING_NORM), DIVERGING_LOSS)
    assert found.first_step < 10 and "twice its initial level" in found.text
    assert judge(np.array(LEARNING_NORM), LEARNING_LOSS)[0] == []


def test_the_same_findings_however_the_steps_are_cut_into_frames() -> None:
    total = noisy(600)
    total[200:260] *= 300
    total[500:] *= 3000
    whole = judge(total, cut=600)
    assert len(whole[0]) == 2
    assert judge(total, cut=1) == whole == judge(total, cut=37)


def test_what_a_grad_scaler_leaves_out_is_as_if_it_had_not_been() -> None:
    total, loss = noisy(300, 0.2), np.full(300, 2.0)
    planted = np.isin(np.arange(300), [100, 101, *range(200, 230)])
    total[planted], loss[planted] = 1e9, 50.0
    assert len(judge(total, loss)[0]) > 0
    state, findings, moments = explosion.judge({}, rows(total, loss, skipped=np.where(planted, 2, 0)))
    assert findings == [] == moments
    assert state == explosion.judge({}, rows(total[~planted], loss[~planted]))[0]
    # What the hook itself leaves out is still an explosion.
    assert len(explosion.judge({}, rows(total, loss, skipped=np.where(planted, 1, 0)))[1]) > 0
