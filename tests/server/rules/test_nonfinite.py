from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
from gradwatch import frames
from gradwatch_server.rules import nonfinite
from gradwatch_server.rules.findings import Finding, Rows, State
from gradwatch_server.store.decode import MISSING, Layer, decode_steps
from gradwatch_server.store.registry import LayerBook
from numpy.typing import ArrayLike

from ..stream import LATER, Writer

# Registered in another order than they are executed in: b runs first, then c, then a.
LAYERS = [Layer("a", (1,), 1, 2), Layer("b", (1,), 1, 0), Layer("c", (1,), 1, 1)]
NAN = float("nan")


def rows(
    steps: list[int], norms: object, loss: ArrayLike = 1.0, total: ArrayLike = 1.0, skipped: ArrayLike = 0.0
) -> Rows:
    count = len(steps)
    losses = np.ascontiguousarray(np.broadcast_to(np.asarray(loss, float), count))
    given = losses.view(np.uint64) != MISSING.view(np.uint64)
    totals = np.broadcast_to(np.asarray(total, float), count)
    layered = np.broadcast_to(np.asarray(norms, np.float64), (count, 3))
    left_out = np.broadcast_to(np.asarray(skipped, np.float64), count)
    return Rows(np.array(steps), np.zeros(count), losses, given, totals, layered, None, LAYERS, left_out)


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
        some.skipped,
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


INF = float("inf")
# A float16 training under torch.amp.GradScaler(init_scale=2**24, growth_interval=6): loss, norms of its layers, and
# whether the scaler left the step out.
SCALED = [
    (0.47, [NAN, NAN, NAN], True),
    (0.4462, [NAN, NAN, NAN], True),
    (0.4589, [NAN, NAN, NAN], True),
    (0.4358, [INF, INF, INF], True),
    (0.4767, [INF, 0.0683, INF], True),
    (0.4502, [0.3595, 0.0592, INF], True),
    (0.4206, [0.2913, 0.0666, 0.4162], False),
    (0.4207, [0.3067, 0.0266, 0.4614], False),
    (0.3056, [INF, 0.081, INF], True),
    (0.2746, [0.254, 0.0359, INF], True),
    (0.29, [0.2501, 0.0489, 0.3195], False),
]


def recorded(loss: ArrayLike, norms: ArrayLike, skipped: ArrayLike | None, first: int = 0) -> Rows:
    """Rows as they come out of a hook's steps frame."""
    writer = Writer(["a", "b", "c"])
    if skipped is not None:
        writer.series |= LATER
    writer.layer_table([layer.order for layer in LAYERS])
    table = LayerBook().add(writer.table, None, LAYERS, frames.columns_from_json(writer.schema()))
    found = np.asarray(norms, float)
    total = np.linalg.norm(found, axis=1)
    given: dict[str, Any] = {} if skipped is None else {"skipped": skipped}
    data = writer.steps(np.arange(first, first + len(found)), found, loss=loss, total_norm=total, **given)
    return Rows.of(decode_steps(frames.decode(data), table, 3), LAYERS)


def test_a_grad_scaler_at_work_raises_nothing_and_without_the_column_it_is_as_before() -> None:
    loss, norms, left_out = zip(*SCALED, strict=True)
    assert judge(recorded(loss, norms, np.where(left_out, 2, 0))) == []
    assert judge(recorded(np.full(len(loss), MISSING), norms, np.where(left_out, 2, 0))) == []
    assert [(f.first_step, f.count) for f in judge(recorded(loss, norms, None))] == [(0, 6), (8, 2)]
    by_the_hook = judge(recorded(loss, norms, np.where(left_out, 1, 0)))
    assert [(f.first_step, f.count) for f in by_the_hook] == [(0, 6), (8, 2)]
    assert all("hook left the step out" in finding.text for finding in by_the_hook)


def test_a_loss_that_is_not_finite_is_told_even_where_the_scaler_leaves_the_step_out() -> None:
    loss, norms, left_out = zip(*SCALED, strict=True)
    poisoned = [*loss[:4], NAN, *loss[5:]]
    (found,) = judge(recorded(poisoned, norms, np.where(left_out, 2, 0)))
    assert (found.first_step, found.last_step, found.severity) == (4, 4, "critical")
    assert "born in the forward pass" in found.title


def test_a_loss_scale_that_does_not_recover_is_one_warning() -> None:
    count = nonfinite.PATIENCE
    overflow, good = [NAN, 1.0, NAN], [1.0, 1.0, 1.0]
    enough = recorded(1.0, [overflow] * count + [good], [2] * count + [0])
    assert judge(enough) == []
    (found,) = judge(recorded(1.0, [good] + [overflow] * (count + 5) + [good], [0] + [2] * (count + 5) + [0]))
    assert (found.severity, found.rule) == ("warning", "nonfinite")
    assert (found.first_step, found.last_step, found.count) == (1, count + 5, count + 5)
    assert found.layers == ["a", "c"]  # a is executed last, so its gradient comes first
    assert "from step 1 on" in found.title and f"at step {count + 1} the gradient of a" in found.text
    # A clip of nothing but the total norm: no layer is to blame.
    (found,) = judge(rows(list(range(count + 1)), good, total=INF, skipped=2))
    assert found.layers == [] and "every layer's norm is finite" in found.text


def test_overflows_are_counted_on_over_frames_and_a_good_step_ends_them() -> None:
    chance = np.random.default_rng(3)
    left_out = np.repeat(chance.integers(0, 2, 12), chance.integers(5, 40, 12)) * 2
    norms = np.where(left_out[:, None] == 2, NAN, np.ones(3))
    whole = judge(rows(list(range(len(left_out))), norms, skipped=left_out))
    lengths = [len(list(group)) for value, group in itertools.groupby(left_out) if value]
    assert [finding.count for finding in whole] == [length for length in lengths if length > nonfinite.PATIENCE]
    assert len(whole) > 1
    for size in (1, 7, 50):
        parts = [slice(at, at + size) for at in range(0, len(left_out), size)]
        cut = [rows(list(range(len(left_out)))[p], norms[p], skipped=left_out[p]) for p in parts]
        assert judge(*cut) == whole
