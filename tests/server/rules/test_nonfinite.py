from __future__ import annotations

import json

import numpy as np
from gradwatch_server.rules import nonfinite
from gradwatch_server.rules.findings import Finding, Rows, State
from gradwatch_server.store.decode import MISSING, Layer
from numpy.typing import ArrayLike

# Registered in another order than they are executed in: b runs first, then c, then a.
LAYERS = [Layer("a", (1,), 1, 2), Layer("b", (1,), 1, 0), Layer("c", (1,), 1, 1)]
NAN = float("nan")


def rows(steps: list[int], norms: object, loss: ArrayLike = 1.0, total: ArrayLike = 1.0) -> Rows:
    count = len(steps)
    losses = np.ascontiguousarray(np.broadcast_to(np.asarray(loss, float), count))
    given = losses.view(np.uint64) != MISSING.view(np.uint64)
    totals = np.broadcast_to(np.asarray(total, float), count)
    layered = np.broadcast_to(np.asarray(norms, np.float64), (count, 3))
    return Rows(np.array(steps), np.zeros(count), losses, given, totals, layered, None, LAYERS)


def judge(*parts: Rows) -> list[Finding]:
    """All findings over several frames, the state passed on as JSON."""
    state: State = {}
    found: dict[int, Finding] = {}
    for part in parts:
        state, findings, _ = nonfinite.judge(json.loads(json.dumps(state)), part)
        found |= {finding.first_step: finding for finding in findings}
    return list(found.values())


def test_with_a_finite_loss_the_first_in_backward_order_is_to_blame() -> None:
    (found,) = judge(rows([7, 8, 9], [[1, 1, 1], [1, NAN, NAN], [1, 1, 1]]))
    assert found.layers == ["c", "b"]
    assert (found.first_step, found.last_step, found.count) == (8, 8, 1)
    assert "Non-finite gradient in c at step 8" in found.title
    assert "Step 8" in found.text and "backward" in found.text


def test_with_a_loss_that_is_not_finite_it_was_born_in_the_forward_pass() -> None:
    for loss in (NAN, float("inf")):
        (found,) = judge(rows([3], [[NAN, 1, NAN]], loss=loss))
        assert found.layers == ["c", "a"]
        assert "born in the forward pass, at or before c" in found.text
        assert "step 3, at or before c" in found.title


def test_a_loss_that_was_not_given_is_not_a_nan() -> None:
    assert judge(rows([1, 2], 1.0, loss=MISSING)) == []
    (found,) = judge(rows([3], [[NAN, 1, 1]], loss=MISSING))
    assert found.layers == ["a"] and "no loss was given" in found.text


def test_a_nan_loss_without_a_bad_gradient_and_an_overflowed_norm() -> None:
    (found,) = judge(rows([3], 1.0, loss=NAN))
    assert found.layers == [] and "loss is not finite at step 3" in found.title
    (found,) = judge(rows([4], 1.0, total=float("inf")))
    assert "overflowed at step 4" in found.title


def test_an_unbroken_row_of_bad_steps_is_one_finding_also_over_frames() -> None:
    bad, good = [NAN, 1.0, 1.0], [1.0, 1.0, 1.0]
    parts = (rows([0, 1, 2], [good, bad, bad]), rows([3, 4], [bad, bad]), rows([5, 6, 7], [bad, good, bad]))
    assert [(f.first_step, f.last_step, f.count) for f in judge(*parts)] == [(1, 5, 5), (7, 7, 1)]


def test_absent_layers_are_not_looked_at() -> None:
    some = rows([0], [[NAN, 1, 1]])
    hidden = Rows(
        some.steps,
        some.times,
        some.loss,
        some.loss_given,
        some.total_norm,
        some.norms,
        np.array([[False, True, True]]),
        LAYERS,
    )
    assert judge(hidden) == []


def test_the_same_findings_however_the_steps_are_cut_into_frames() -> None:
    chance = np.random.default_rng(1)
    norms = np.where(chance.random((60, 3)) < 0.1, np.nan, 1.0)
    loss = np.where(chance.random(60) < 0.1, np.nan, 1.0)
    whole = judge(rows(list(range(60)), norms, loss))
    for size in (1, 7):
        parts = [slice(at, at + size) for at in range(0, 60, size)]
        assert judge(*(rows(list(range(60))[p], norms[p], loss[p]) for p in parts)) == whole
