"""The sampler in trainings: within its budget by a clock that the test moves, and never in the training's way."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from gradwatch.clipping.strategy import Decision, Gradients
from gradwatch.measure import magnitude, sampler
from gradwatch.measure.sample import Sample
from gradwatch.measure.sampler import Sampler
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.client_hook.measure.device import NoWaiting, stand_in
from tests.client_hook.measure.test_magnitude import by_numpy
from tests.client_hook.measure.training import NOTHING, Clock, gathered, layers, run, small_model, train


def test_the_training_is_bit_identical_with_and_without_it() -> None:
    sent: list[Sample] = []
    kept = Sampler(range(6), 0.5, sent.append)

    def never(gradients: Gradients, decision: Decision) -> None:
        return

    results = []
    for step in (never, kept.step):
        model = small_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        train(model, optimizer, 200, step)
        gradients = [parameter.grad for parameter in model.parameters()]
        results.append(([*model.parameters(), *gradients], torch.get_rng_state()))
    assert len(sent) >= 15 and {sample.metric for sample in sent} >= {"weight_norm", "update_ratio", "grad_histogram"}
    for ours, theirs in zip(*(tensors for tensors, _ in results), strict=True):
        assert ours is not None and theirs is not None and torch.equal(ours, theirs)
    assert torch.equal(results[0][1], results[1][1])


def test_samples_tell_of_the_step_they_were_taken_at() -> None:
    """Every sample against NumPy, from copies that the test keeps of every step."""
    sent: list[Sample] = []
    kept = Sampler([5, 0, 1, 3], 0.5, sent.append)
    weights: list[list[np.ndarray[Any, Any]]] = []
    gradients: list[list[np.ndarray[Any, Any]]] = []

    def step(step_gradients: Gradients, decision: Decision) -> None:
        weights.append([parameter.numpy().astype(np.float64) for parameter in step_gradients.parameters])
        gradients.append([gradient.numpy().copy() for gradient in step_gradients.tensors])
        kept.step(step_gradients, decision)

    model = small_model(1)
    train(model, torch.optim.SGD(model.parameters(), lr=0.05), 150, step)
    layer_of, seen = {row: layer for row, layer in enumerate([5, 0, 1, 3])}, Counter[str]()
    for sample in sent:
        for row, value in zip(sample.places.tolist(), sample.numpy(), strict=True):
            now = weights[sample.step][layer_of[row]]
            seen[sample.metric] += 1
            if sample.metric == "weight_norm":
                assert value == pytest.approx(np.linalg.norm(now), rel=1e-5)
            elif sample.metric == "update_ratio":
                later = weights[sample.step + 1][layer_of[row]]
                assert value == pytest.approx(np.linalg.norm(later - now) / np.linalg.norm(now), rel=1e-4)
            else:
                assert value.tolist() == by_numpy(gradients[sample.step][layer_of[row]])
    assert min(seen[metric] for metric in ("weight_norm", "update_ratio", "grad_histogram")) >= 8


def test_time_stays_within_the_budget_and_every_layer_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent = Clock(monkeypatch), list[Sample]()
    kept = Sampler(range(30), 0.01, sent.append)
    spent = run(kept, layers(30), 20_000, clock)
    share = sum(spent) / clock.now
    assert 0.009 < share <= 0.01 + 1e-4
    times: Counter[tuple[str, int]] = Counter()
    for sample in sent:
        times.update((sample.metric, place) for place in sample.places.tolist())
    for metric in ("weight_norm", "grad_histogram", "update_ratio"):
        of_layers = [times[metric, place] for place in range(30)]
        assert min(of_layers) > 10 and max(of_layers) - min(of_layers) <= 1


def test_one_piece_of_work_a_step_and_ten_steps_between_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent = Clock(monkeypatch), list[Sample]()
    kept = Sampler(range(3), 0.5, sent.append)
    parameters = layers(3)
    begun = []
    with torch.no_grad():
        for step in range(400):
            clock.now += 0.01
            before = len(sent)
            kept.step(gathered(parameters, step), NOTHING)
            assert len(sent) - before <= 1
            begun += [sample.step for sample in sent[before:]]
    assert begun[0] >= 10 and min(np.diff(begun)) >= 10 and max(np.diff(begun)) <= 11
    assert kept.step(gathered(parameters, 400), NOTHING) >= 0


def test_a_layer_too_dear_for_its_budget_is_paid_back_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, per_layer=0.3)
    kept = Sampler([0], 0.01)
    spent = run(kept, layers(1), 200_000, clock)
    dear = [step for step, seconds in enumerate(spent) if seconds > 0.1]
    assert len(dear) >= 3 and min(np.diff(dear)) > 0.3 / 0.01 / 1e-3 * 0.8
    assert sum(spent) / clock.now <= 0.01 + 0.3 / clock.now


def test_a_pause_is_no_reason_to_sample_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    kept, parameters = Sampler(range(4), 0.01), layers(4)
    run(kept, parameters, 100, clock)
    clock.now += 3600
    assert sum(run(kept, parameters, 1000, clock)) <= 0.05 + 0.01 + 1e-3


def test_samples_never_outgrow_the_recording_of_the_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent = Clock(monkeypatch, per_layer=0.0), list[Sample]()
    monkeypatch.setattr(sampler, "_SAVED_BYTES", 20_000)
    kept = Sampler(range(20), 0.5, sent.append)
    run(kept, layers(20), 3000, clock, 0.1)
    size = sum(len(sample.places) * (292 if sample.metric == "grad_histogram" else 16) for sample in sent)
    assert 0.9 * 3000 * 20 * 4 < size <= 3000 * 20 * 4 + 20_000


def test_no_budget_no_layers_or_closed_means_no_samples() -> None:
    parameters, sent = layers(2), list[Sample]()
    for kept in (Sampler(range(2), 0.0, sent.append), Sampler([], 0.5, sent.append)):
        assert [kept.step(gathered(parameters, step), NOTHING) for step in range(60)] == [0.0] * 60
    kept = Sampler(range(2), 0.9, sent.append)
    kept.close()
    assert [kept.step(gathered(parameters, step), NOTHING) for step in range(60)] == [0.0] * 60
    assert sent == []
    for wrong in (-0.1, 1.0, 5, math.nan):
        with pytest.raises(ValueError, match=r"such as 0\.01"):
            Sampler([0], wrong)


def per_layer(step: int, clipped: bool) -> Decision:
    factors = torch.tensor([0.5, 1.0, 0.25]) if clipped else None
    return Decision(0.6 if clipped else 1.0, clipped, 1.0, factors=factors)


def test_coefficients_are_sampled_in_their_turn_and_at_clip_events(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent, parameters = Clock(monkeypatch), list[Sample](), layers(3)
    kept = Sampler(range(3), 0.5, sent.append)
    with torch.no_grad():
        for step in range(1000):
            clock.now += 0.01
            kept.step(gathered(parameters, step), per_layer(step, clipped=step % 50 == 33))
    coefficients = [sample for sample in sent if sample.metric == "layer_coefficient"]
    found = [(sample.step % 50 == 33, sample.numpy().tolist()) for sample in coefficients]
    assert [1.0, 1.0, 1.0] in [values for clipped, values in found if not clipped]
    events = [values for clipped, values in found if clipped]
    assert len(events) >= 12 and all(values == [0.5, 1.0, 0.25] for values in events)
    assert {sample.metric for sample in sent} == {"weight_norm", "update_ratio", "grad_histogram", "layer_coefficient"}


def test_clip_events_at_every_step_leave_the_others_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent, parameters = Clock(monkeypatch), list[Sample](), layers(3)
    kept = Sampler(range(3), 0.01, sent.append)
    with torch.no_grad():
        for step in range(4000):
            clock.now += 0.01
            kept.step(gathered(parameters, step), per_layer(step, clipped=True))
    counts = Counter(sample.metric for sample in sent)
    assert min(counts.values()) >= 50 and counts["layer_coefficient"] <= 2 * counts["weight_norm"] + 2


def test_of_two_optimizers_that_take_turns_both_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a GAN: an update ratio spans both clips, and tells of the one step that its own optimizer took."""
    clock, sent, parameters = Clock(monkeypatch), list[Sample](), layers(6)
    kept = Sampler(range(6), 0.5, sent.append, {id(parameter): at for at, parameter in enumerate(parameters)})
    with torch.no_grad():
        for step in range(600):
            clock.now += 0.01
            half = [0, 1, 2] if step % 2 == 0 else [3, 4, 5]
            kept.step(gathered(parameters, step, half), NOTHING)
            for place in half:
                parameters[place].mul_(1.01 if step % 2 == 0 else 0.98)
    for metric in ("weight_norm", "update_ratio", "grad_histogram"):
        places = [place for sample in sent if sample.metric == metric for place in sample.places.tolist()]
        assert set(places) == set(range(6))
    for sample in sent:
        if sample.metric == "update_ratio":
            expected = 0.01 if sample.step % 2 == 0 else 0.02
            assert sample.numpy().tolist() == [pytest.approx(expected, rel=1e-3)] * 3


def test_layers_that_never_come_back_do_not_hold_up_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent, parameters = Clock(monkeypatch), list[Sample](), layers(4)
    kept = Sampler(range(4), 0.5, sent.append, {id(parameter): at for at, parameter in enumerate(parameters)})
    with torch.no_grad():
        while kept._pending is None:
            clock.now += 0.01
            kept.step(gathered(parameters, 0, [0, 1]), NOTHING)
        for step in range(200):
            clock.now += 0.01
            kept.step(gathered(parameters, step, [2, 3]), NOTHING)
    assert {place for sample in sent for place in sample.places.tolist()} >= {2, 3}


def test_a_metric_that_fails_is_left_out_and_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("out of memory")

    clock, sent = Clock(monkeypatch), list[Sample]()
    monkeypatch.setattr(magnitude, "magnitudes", fail)
    run(Sampler(range(3), 0.5, sent.append), layers(3), 300, clock)
    assert {sample.metric for sample in sent} == {"weight_norm", "update_ratio"}
    assert capsys.readouterr().err.count("grad_histogram is sampled no more: RuntimeError('out of memory')") == 1
    run(Sampler(range(3), 0.5, fail), layers(3), 300, clock)
    assert capsys.readouterr().err.count("sampled no more") == 3


def test_steps_without_gradients_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent, parameters = Clock(monkeypatch), list[Sample](), layers(2)
    kept = Sampler(range(2), 0.5, sent.append)
    with torch.no_grad():
        for step in range(300):
            clock.now += 0.01
            kept.step(gathered(parameters, step, [] if step % 3 else None), NOTHING)
    assert {sample.metric for sample in sent} == {"weight_norm", "update_ratio", "grad_histogram"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_nothing_waits_for_another_device(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent, events = Clock(monkeypatch), list[Sample](), stand_in(monkeypatch)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), NoWaiting():  # type: ignore[no-untyped-call]
        shapes = [(40, 30), (30,), (200_000,)]
        parameters = [torch.empty(shape, device="cuda", dtype=dtype) for shape in shapes]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        kept = Sampler(range(3), 0.5, sent.append)
        for step in range(200):
            clock.now += 0.01
            factors = torch.empty(3, device="cuda", dtype=torch.float64) if step % 2 else None
            clipped = torch.empty((), device="cuda", dtype=torch.bool)
            kept.step(gathered(parameters, step), Decision(clipped.float(), clipped, 1.0, factors=factors))
            for event in events:
                event.happened = True
        assert all(sample.ready() for sample in sent)
    assert Counter(sample.metric for sample in sent).keys() == {
        "weight_norm", "update_ratio", "grad_histogram", "layer_coefficient",
    }  # fmt: skip
    assert {sample.values.device.type for sample in sent} == {"cuda"}


def test_inside_a_captured_graph_nothing_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent = Clock(monkeypatch), list[Sample]()
    monkeypatch.setattr(sampler, "is_captured", lambda device: True)
    kept = Sampler(range(2), 0.5, sent.append)
    run(kept, layers(2), 100, clock)
    assert sent == [] and kept._pending is None


def test_a_skipped_optimizer_step_is_an_update_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent = Clock(monkeypatch), list[Sample]()
    run(Sampler(range(2), 0.5, sent.append), layers(2), 100, clock, 0.01)
    ratios = [sample.numpy().tolist() for sample in sent if sample.metric == "update_ratio"]
    assert ratios and all(ratio == [0.0, 0.0] for ratio in ratios)


def test_the_copies_of_weights_stay_small_and_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    model = nn.ParameterList([nn.Parameter(torch.ones(1000)) for _ in range(10)])
    for parameter in model:
        parameter.grad = torch.ones(1000)
    monkeypatch.setattr(sampler, "_all_turns", lambda: _turns_of_at_most(2500))
    kept = Sampler(range(10), 0.5)
    held = []
    with torch.no_grad():
        for step in range(100):
            clock.now += 0.01
            kept.step(gathered(list(model), step), NOTHING)
            held.append(0 if kept._pending is None else len(kept._pending.rows))
    assert max(held) == 2 and 0 in held
    kept.close()
    assert kept._pending is None


all_turns = sampler._all_turns


def _turns_of_at_most(elements: int) -> list[Any]:
    turns = all_turns()[0]
    turns.most_elements = elements
    return [turns]
