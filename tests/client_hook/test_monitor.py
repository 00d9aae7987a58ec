"""The monitor in a training loop: torch's bits, every step recorded, nothing of ours ever in the way."""

from __future__ import annotations

import copy
import math
import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.measure_only import MeasureOnly
from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.strategy import Decision, Gradients
from gradwatch.clipping.value import Value
from gradwatch.monitor import Monitor, NonFiniteGradientError
from gradwatch.recorder import MISSING, SCALARS
from gradwatch.step_writer import StepWriter, Wanted
from torch import Tensor, nn

from tests.client_hook.conftest import KeepingSink, monitor_of

ClipCall = Callable[[Tensor], Any]


def small_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, clip: ClipCall, steps: int) -> None:
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        optimizer.zero_grad()
        inputs = torch.randn(16, 6, generator=generator)
        loss = (model(inputs) - inputs[:, :3].sin() * 3).square().mean() * 10
        loss.backward()
        clip(loss)
        optimizer.step()


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def scalar(sink: KeepingSink, name: str) -> list[float]:
    return [float(value) for rows in sink.rows() for value in rows.scalars[:, SCALARS.index(name)]]


@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize(("p", "threshold"), [(1.0, 150.0), (2.0, 12.0), (math.inf, 7.0)])
def test_two_hundred_steps_are_bit_identical_to_torchs_clipping(
    optimizer_type: Any, p: float, threshold: float, sink: KeepingSink
) -> None:
    ours, theirs = small_model(), small_model()
    optimizer = optimizer_type(ours.parameters(), lr=0.01)
    monitor = monitor_of(ours, [optimizer], GlobalNorm(threshold, p), sink)
    norms: list[list[float]] = []
    totals: list[Tensor] = []

    def torch_clip(loss: Tensor) -> None:
        gradients = [parameter.grad for parameter in theirs.parameters() if parameter.grad is not None]
        norms.append([float(np.linalg.norm(g.double().numpy().ravel(), p)) for g in gradients])
        totals.append(torch.nn.utils.clip_grad_norm_(theirs.parameters(), threshold, p))

    returned: list[Tensor] = []
    train(ours, optimizer, lambda loss: returned.append(monitor.clip(loss)), 200)
    train(theirs, optimizer_type(theirs.parameters(), lr=0.01), torch_clip, 200)
    assert all(torch.equal(one, other) for one, other in zip(weights(ours), weights(theirs), strict=True))
    (rows,) = sink.rows()
    assert rows.step.tolist() == list(range(200))
    np.testing.assert_allclose(rows.norms, norms, rtol=1e-6)
    total_norm = rows.scalars[:, SCALARS.index("total_norm")].astype(np.float32)
    assert total_norm.tobytes() == torch.stack(returned).numpy().tobytes() == torch.stack(totals).numpy().tobytes()
    clipped = rows.scalars[:, SCALARS.index("clipped")]
    assert clipped.tolist() == [float(total > threshold) for total in total_norm.tolist()] and 0 < clipped.sum() < 200


def test_the_row_says_what_the_step_was(sink: KeepingSink) -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
    monitor = monitor_of(model, [optimizer], GlobalNorm(0.5), sink, start_step=40)
    losses: list[float] = []

    def clip(loss: Tensor) -> None:
        losses.append(loss.item())
        monitor.clip(loss)

    train(model, optimizer, clip, 3)
    assert monitor.step == 43
    assert scalar(sink, "loss") == losses
    assert sink.tables[0] == [
        [f"{layer}.{kind}", list(shape), math.prod(shape), order]
        for order, (layer, kind, shape) in enumerate(
            (layer, kind, shape)
            for layer, width, inputs in ((0, 8, 6), (2, 8, 8), (4, 3, 8))
            for kind, shape in (("weight", (width, inputs)), ("bias", (width,)))
        )
    ]
    monitor.threshold = 0.25
    monitor.clip()
    (last,) = sink.rows()
    assert last.step.tolist() == [43]
    said = dict(zip(SCALARS, last.scalars[0].tolist(), strict=True))
    assert said["threshold"] == 0.25 and said["learning_rate"] == 0.125
    assert np.array(said["loss"]).view(np.uint64) == np.array(MISSING).view(np.uint64)


def test_absent_layers_are_neither_zero_nor_nan(sink: KeepingSink) -> None:
    model = small_model()
    monitor = monitor_of(model, [], MeasureOnly(), sink)
    model[0](torch.ones(1, 6)).sum().backward()
    monitor.clip()
    (rows,) = sink.rows()
    assert np.unpackbits(rows.absent, axis=1, bitorder="little")[0, :6].tolist() == [0, 0, 1, 1, 1, 1]
    assert rows.norms[0, 2:].tolist() == [0.0] * 4 and (rows.norms[0, :2] > 0).all()


def test_a_model_without_any_gradient_is_clipped_to_nothing(sink: KeepingSink) -> None:
    total = monitor_of(small_model(), [], GlobalNorm(1.0), sink).clip()
    assert total.item() == 0.0 and len(sink.rows()) == 1


def poison(model: nn.Sequential, value: float) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    weight = model[2].weight
    assert isinstance(weight, Tensor) and weight.grad is not None
    weight.grad[0, 0] = value


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_record_does_what_torch_does(value: float, sink: KeepingSink) -> None:
    ours, theirs = small_model(), small_model()
    poison(ours, value)
    poison(theirs, value)
    total = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    returned = monitor_of(ours, [], GlobalNorm(1.0), sink).clip()
    assert torch.equal(returned.isnan(), total.isnan()) and sink.urgencies == 1
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.equal(one.grad.nan_to_num(9e9), other.grad.nan_to_num(9e9))


@pytest.mark.parametrize("first_step", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "optimizer_type",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, fused=True),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
    ],
    ids=["SGD", "fused SGD", "fused AdamW"],
)
def test_skip_leaves_parameters_and_optimizer_state_untouched(
    optimizer_type: Any, value: float, first_step: bool, sink: KeepingSink
) -> None:
    model = small_model()
    optimizer = optimizer_type(model.parameters())
    monitor = monitor_of(model, [optimizer], GlobalNorm(1.0), sink, nonfinite="skip")
    if not first_step:
        train(model, optimizer, monitor.clip, 2)
    before, state = weights(model), copy.deepcopy(optimizer.state_dict())
    poison(model, value)
    monitor.clip()
    optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(before, weights(model), strict=True))
    assert repr(optimizer.state_dict()) == repr(state)
    train(model, optimizer, monitor.clip, 1)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not all(torch.equal(one, other) for one, other in zip(before, weights(model), strict=True))


def test_raise_names_step_and_layers_and_touches_nothing(sink: KeepingSink) -> None:
    model = small_model()
    monitor = monitor_of(model, [], GlobalNorm(1.0), sink, nonfinite="raise", start_step=5)
    poison(model, math.nan)
    with pytest.raises(NonFiniteGradientError, match=r"step 5: the gradient norm is not finite in 2\.weight$"):
        monitor.clip()
    first = model[0].weight
    assert isinstance(first, Tensor) and first.grad is not None and bool((first.grad == 1).all())
    assert monitor.step == 6 and len(sink.rows()) == 1


class Broken(GlobalNorm):
    """Fails while it decides."""

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        raise RuntimeError("planted")


def test_when_we_fail_torchs_clipping_takes_over(sink: KeepingSink, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = small_model(), small_model()
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    monitor = monitor_of(ours, [optimizer], Broken(0.5), sink)
    monitor.log({"x": 1.0})
    train(ours, optimizer, monitor.clip, 3)
    clip = lambda loss: torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)  # noqa: E731
    train(theirs, torch.optim.SGD(theirs.parameters(), lr=0.1), clip, 3)
    assert all(torch.equal(one, other) for one, other in zip(weights(ours), weights(theirs), strict=True))
    assert [event[:2] for event in sink.events] == [(0, "fallback"), (1, "fallback"), (2, "fallback")]
    assert capsys.readouterr().err.count("torch's own clipping took over") == 1


def test_when_recording_fails_clipping_goes_on(
    sink: KeepingSink, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: StepWriter, *arguments: Any) -> None:
        raise MemoryError("planted")

    monkeypatch.setattr(StepWriter, "write", broken)
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = monitor_of(model, [optimizer], GlobalNorm(0.5), sink)
    train(model, optimizer, monitor.clip, 3)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert torch.nn.utils.get_total_norm(gradients) <= 0.5001
    assert capsys.readouterr().err.count("could not be recorded") == 1


def test_copies_clip_the_same_and_record_nothing(sink: KeepingSink) -> None:
    model = small_model()
    monitor = monitor_of(model, [], GlobalNorm(0.5), sink)
    poison(model, 1.0)
    monitor.clip()
    recorded = len(sink.rows())
    for copied_model, copied in (copy.deepcopy((model, monitor)), pickle.loads(pickle.dumps((model, monitor)))):
        assert isinstance(copied, Monitor) and copied.step == 1
        for parameter in copied_model.parameters():
            parameter.grad = torch.ones_like(parameter)
        copied.clip()
        gradients = [parameter.grad for parameter in copied_model.parameters() if parameter.grad is not None]
        assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(0.5)
    assert recorded == 1 and sink.rows() == []


def test_each_optimizer_can_be_clipped_on_its_own(sink: KeepingSink) -> None:
    model = small_model()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    rest = torch.optim.SGD([*model[2].parameters(), *model[4].parameters()], lr=0.1)
    monitor = monitor_of(model, [first, rest], GlobalNorm(1.0), sink)
    poison(model, 1.0)
    total = monitor.clip(optimizer=first)
    assert total.item() == pytest.approx(math.sqrt(6 * 8 + 8))
    untouched = model[2].weight
    assert isinstance(untouched, Tensor) and untouched.grad is not None and bool((untouched.grad == 1).all())
    (rows,) = sink.rows()
    assert np.unpackbits(rows.absent, axis=1, bitorder="little")[0, :6].tolist() == [0, 0, 1, 1, 1, 1]


def test_parameters_added_later_are_clipped_and_open_a_new_table(sink: KeepingSink) -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = monitor_of(model, [optimizer], GlobalNorm(1.0), sink)
    poison(model, 1.0)
    monitor.clip()
    late = nn.Parameter(torch.zeros(4))
    optimizer.add_param_group({"params": [late]})
    late.grad = torch.full((4,), 100.0)
    monitor.clip()
    assert late.grad.norm() <= 1.0
    assert [len(table) for table in sink.tables] == [6, 7] and sink.tables[1][6][0] == "optimizer0.group1.0"


def test_a_scaler_is_unscaled_once(sink: KeepingSink) -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monitor = monitor_of(model, [optimizer], GlobalNorm(1e9), sink)
    for by_hand in (False, True):
        optimizer.zero_grad()
        loss = model(torch.ones(2, 6)).square().mean()
        expected = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        scaler.scale(loss).backward()
        if by_hand:
            scaler.unscale_(optimizer)
        total = monitor.clip(loss, scaler=scaler)
        assert total.item() == pytest.approx(torch.nn.utils.get_total_norm(expected).item(), rel=1e-5)
        scaler.step(optimizer)
        scaler.update()
    assert scalar(sink, "loss_scale") == [1024.0, 1024.0]


def test_too_many_layers_are_folded_into_modules(sink: KeepingSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwatch.frames.MAX_LAYERS", 4)
    monkeypatch.setattr(fold := "gradwatch.step_writer.fold_into_modules", _fold_to_four(fold))
    model = small_model()
    poison(model, 2.0)
    monitor_of(model, [], MeasureOnly(), sink).clip()
    assert [row[0] for row in sink.tables[0]] == ["0", "2", "4"]
    (rows,) = sink.rows()
    np.testing.assert_allclose(rows.norms[0], [math.sqrt(56), math.sqrt(72 + 3), math.sqrt(27)], rtol=1e-6)


def _fold_to_four(name: str) -> Any:
    from gradwatch.layers import fold_into_modules

    return lambda layers: fold_into_modules(layers, 4)


def test_state_travels_to_the_next_attempt(sink: KeepingSink) -> None:
    monitor = monitor_of(small_model(), [], GlobalNorm(1.0), sink)
    monitor.clip()
    monitor.threshold = 0.125
    opened: list[int] = []
    resumed = Monitor(
        small_model(),
        [],
        GlobalNorm(1.0),
        nonfinite="record",
        start_step=0,
        wanted=Wanted(),
        open_sink=lambda step, strategy: opened.append(step) or sink,  # type: ignore[func-returns-value]
    )
    resumed.load_state_dict(monitor.state_dict())
    resumed.clip()
    assert opened == [1] and resumed.threshold == 0.125 and resumed.step == 2


def test_values_and_events_go_to_the_last_clipped_step(sink: KeepingSink) -> None:
    monitor = monitor_of(small_model(), [], Value(1.0), sink, start_step=9)
    monitor.clip()
    monitor.log({"accuracy": 0.5})
    monitor.log({"accuracy": torch.tensor(0.75)}, step=3)
    monitor.event("checkpoint", "saved")
    assert [step for step, _ in sink.values] == [9, 3] and sink.events == [(9, "checkpoint", "saved")]


def test_an_end_by_exception_is_told(sink: KeepingSink) -> None:
    with pytest.raises(ZeroDivisionError), monitor_of(small_model(), [], Value(1.0), sink) as monitor:
        monitor.clip()
        raise ZeroDivisionError("of the user's own")
    assert sink.ends == [("failed", "ZeroDivisionError: of the user's own")]
    monitor.clip()
    assert len(sink.rows()) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_clips_and_records_nothing(sink: KeepingSink) -> None:
    from gradwatch import registry

    model = small_model()
    monitor = monitor_of(model, [], GlobalNorm(0.5), sink)
    registry.remember(model, monitor)
    monitor.clip()
    child = os.fork()
    if child == 0:
        poison(model, 1.0)
        monitor.clip()
        silent = not sink.rows()[1:] and monitor._writer is not None and monitor._writer.sink is not sink
        os._exit(0 if silent else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    monitor.finish()
