"""The prober: one point at a time within its budget, and off with a word as soon as anything is wrong."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import gradwatch
import numpy as np
import pytest
import torch
from gradwatch import watching
from gradwatch.measure.device_time import DeviceTime
from gradwatch.probe import laboratory, prober
from torch import Tensor, nn
from torch.optim import SGD

from tests.client_hook.probe.training import Bowl, BowlTraining, only


@pytest.fixture
def unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """``watch`` takes a budget without a bound, so that there is a probe at every step, however busy the machine."""
    monkeypatch.setattr(watching, "_share", lambda name, share: 50.0 * share)


def test_time_spent_stays_within_the_share() -> None:
    pieces: list[float] = []

    def loss(model: Any) -> Any:
        begun = time.perf_counter()
        found = model()
        pieces.append(time.perf_counter() - begun)
        return found

    training = BowlTraining(steps=1500, closures=[loss], budget=0.1)
    prober = training.prober
    assert prober.points >= 20
    # The last piece may have been dearer than thought, and the pause before it is saved up.
    assert prober.spent <= 0.1 * prober.elapsed + 0.25


@pytest.mark.parametrize("wrong", ["loss", 1, ["loss"], {}])
def test_what_is_no_function_is_refused_as_it_was_written(wrong: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(repr(wrong[0] if isinstance(wrong, list) else wrong))):
        gradwatch.watch(Bowl(), clip=1.0, probe=wrong)


def test_there_is_never_more_than_one_point_in_a_step() -> None:
    calls: list[int] = []

    def at_step(step: int, training: BowlTraining) -> None:
        calls.append(0)

    def loss(model: Any) -> Any:
        calls[-1] += 1
        return model()

    BowlTraining(closures=[loss, loss], threshold=0.5, at_step=at_step)
    assert sum(calls) > 50 and max(calls) == 1


def test_a_budget_of_nothing_or_a_rank_but_the_first_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for budget, rank in ((0.0, "0"), (0.5, "1")):
        monkeypatch.setenv("RANK", rank)
        model = Bowl()
        monitor = gradwatch.watch(model, clip=1.0, probe=lambda model: model(), probe_budget=budget)
        assert monitor._wanted.probing is None


def ignoring() -> Callable[[Any], Tensor]:
    kept = Bowl()
    return lambda model: kept().detach()


def out_of_memory(model: Any) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def raising(model: Any) -> Tensor:
    raise KeyError("targets")


UNFIT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "ignores its model": (ignoring(), "does not depend on the weights"),
    "raises": (raising, "the probe raised KeyError: 'targets'"),
    "gives many numbers": (lambda model: model.first, r"must return one number, not shape \(4, 2\)"),
    "gives nothing": (lambda model: None, "not NoneType"),
    "takes too much memory": (out_of_memory, "memory ran out; give the probe a smaller batch"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_an_unfit_probe_is_turned_off_with_an_event_and_the_training_goes_on(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    closure, match = UNFIT[kind]
    training = BowlTraining(steps=60, closures=[closure])
    bare = BowlTraining(steps=60, closures=[closure], budget=0.0)
    assert (training.weights[-1] == bare.weights[-1]).all()
    assert not training.prober.is_active and training.prober._laboratory is None
    (event,) = [event for event in training.sink.events if event[1] == "probe"]
    assert re.search(match, event[2])
    assert capfd.readouterr().err.count("probing is off") == 1


def test_a_model_that_cannot_be_copied_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    model: Any = Bowl()
    model.lock = threading.Lock()
    training = BowlTraining(steps=20, model=model)
    assert "cannot be deep-copied" in training.sink.events[0][2] and training.prober.points == 0


def test_a_model_with_complex_weights_is_refused_in_words() -> None:
    model = Bowl()
    model.spectrum = nn.Parameter(torch.zeros(2, dtype=torch.complex64), requires_grad=False)
    assert BowlTraining(steps=20, model=model).prober.is_active  # what stays as it is may be complex
    model.spectrum.requires_grad_(True)
    training = BowlTraining(steps=20, model=model)
    assert "complex parameters" in training.sink.events[0][2] and training.prober.points == 0


def test_an_interrupted_look_is_taken_again() -> None:
    calls: list[int] = []

    def interrupted(model: Any) -> Any:
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return model()

    def go_on(step: int, training: BowlTraining) -> None:
        if len(calls) == 29:
            with pytest.raises(KeyboardInterrupt):
                for _ in range(100):
                    training.monitor.clip()

    training = BowlTraining(steps=200, closures=[interrupted], at_step=go_on)
    assert training.prober.is_active and len(calls) > 100


def test_a_probe_that_evaluates_the_training_s_own_model_is_undone(unbounded: None) -> None:
    weights = []
    for budget in (0.9, 0.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
        optimizer, inputs = SGD(model.parameters(), lr=0.1), torch.randn(8, 4)

        def evaluated(given: Any, model: nn.Module = model, inputs: Tensor = inputs) -> Tensor:
            model(inputs)  # moves the statistics
            return model.eval()(inputs).square().mean()  # type: ignore[no-any-return]

        monitor = gradwatch.watch(model, optimizer, clip=1.0, probe=evaluated, probe_budget=budget)
        for _ in range(20):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            monitor.clip()
            optimizer.step()
        assert monitor._writer is not None and (
            monitor._writer._prober is None or not monitor._writer._prober.is_active
        )
        monitor.finish()
        weights.append([*model.state_dict().values()])
    assert all(map(torch.equal, *weights))


def test_too_little_memory_is_said_before_any_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laboratory, "free_bytes", lambda device: 1000)
    training = BowlTraining(steps=20)
    assert "memory, and only 0.001 MB are free" in training.sink.events[0][2]
    assert not training.prober.is_active


def test_where_memory_is_scarce_the_trajectory_plane_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Of 96 bytes of weights: eight copies are 768 bytes, twelve would be 1152.
    monkeypatch.setattr(laboratory, "free_bytes", lambda device: 2 * 1000)

    def ask(step: int, training: BowlTraining) -> None:
        if step in (10, 40):
            training.ask(plane="trajectory", levels=5, seed=0, id="path")

    training = BowlTraining(steps=150, at_step=ask)
    planes = {rows.about["plane"] for rows in training.rows("surface", "plane")}
    assert planes <= {"update", "random"} and "random" in planes
    assert "without the trajectory plane" in capfd.readouterr().err


def test_a_look_that_takes_far_longer_than_a_step_turns_probing_off() -> None:
    def slow(model: Any) -> Any:
        time.sleep(0.6)
        return model()

    training = BowlTraining(steps=4000, closures=[slow], budget=0.99)
    assert "give the probe a smaller batch" in training.sink.events[0][2] and training.prober.points < 10


def test_a_model_that_grows_is_copied_anew() -> None:
    class Growing(Bowl):
        third: nn.Parameter

        def forward(self) -> Tensor:
            loss = super().forward()
            return loss + self.third.square().sum() if hasattr(self, "third") else loss

    def grow(step: int, training: BowlTraining) -> None:
        if step == 100:
            training.model.third = nn.Parameter(torch.ones(2, dtype=torch.float64))
            training.optimizer.add_param_group({"params": [training.model.third]})

    training = BowlTraining(steps=300, model=Growing(), at_step=grow)
    snapshots = training.rows("trajectory", "points")
    assert {rows.about["parameters"] for rows in snapshots} == {12, 14}
    assert training.prober.is_active


def test_a_model_that_is_moved_or_gets_a_buffer_is_copied_anew() -> None:
    class Scaled(Bowl):
        scale: Tensor

        def forward(self) -> Tensor:
            loss = super().forward()
            return loss * self.scale if hasattr(self, "scale") else loss

    def change(step: int, training: BowlTraining) -> None:
        if step == 100:
            training.model.register_buffer("scale", torch.full((), 3.0, dtype=torch.float64))
        if step == 200:
            training.model.scale = torch.full((1,), 5.0, dtype=torch.float64)
        if step == 300:
            training.model.float()
            training.model.matrix = training.model.matrix.float()

    training = BowlTraining(400, model=Scaled(), at_step=change)
    seen = set()
    for rows in training.rows("trajectory", "points"):
        scale = [1, 3, 5, 5][rows.step // 100]
        assert only(rows, "loss") == pytest.approx(scale * training.loss(training.weights[rows.step]), rel=1e-4)
        seen.add((rows.step // 100, rows.about["dtype"]))
    assert seen == {(0, "float64"), (1, "float64"), (2, "float64"), (3, "float32")}


def test_a_model_that_changes_all_the_time_is_given_up(capfd: pytest.CaptureFixture[str]) -> None:
    def take_turns(step: int, training: BowlTraining) -> None:
        training.model.first.requires_grad_(step % 2 == 0)

    training = BowlTraining(200, at_step=take_turns)
    assert "all the time" in training.sink.events[0][2] and not training.prober.is_active
    assert capfd.readouterr().err.count("gradwatch:") < 8


def test_a_probed_monitor_and_its_model_can_be_copied_and_pickled(unbounded: None) -> None:
    model = nn.Linear(2, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    monitor = gradwatch.watch(model, optimizer, clip=1.0, probe=lambda model: model(torch.ones(2)).sum())
    for _ in range(10):
        model(torch.ones(2)).sum().backward()
        monitor.clip()
        optimizer.step()
    for twin in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        assert twin.step == 10 and twin._wanted.probing is None
        twin.clip()
    copy.deepcopy(model)
    monitor.finish()


def test_probing_keeps_no_forgotten_model_alive(unbounded: None) -> None:
    model = nn.Linear(2, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    closure = lambda model: model(torch.ones(2)).sum()  # noqa: E731
    monitor = gradwatch.watch(model, optimizer, clip=1.0, probe=closure, probe_budget=0.9)
    for _ in range(20):
        model(torch.ones(2)).sum().backward()
        monitor.clip()
        optimizer.step()
    assert monitor._writer is not None and monitor._writer._prober is not None and monitor._writer._prober.points
    gone = weakref.ref(model), weakref.ref(monitor)
    del model, optimizer, monitor
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_device_that_lags_behind_leaves_an_update_one_step_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lagging(DeviceTime):
        asked = 0

        def take(self) -> float | None:
            self.asked += 1
            return 0.0 if self.asked % 4 == 0 else None

    monkeypatch.setattr(prober, "DeviceTime", Lagging)
    training = BowlTraining(steps=800, threshold=0.02)
    lines, planes = training.rows("line", "summary"), training.rows("surface", "plane")
    assert lines and not training.rows("verdict", "unsupported") and training.rows("verdict", "points")
    for rows in lines:
        update = training.weights[rows.step + 1] - training.weights[rows.step]
        assert only(rows, "update_norm") == pytest.approx(np.linalg.norm(update), rel=1e-12)
    for rows in planes:
        if rows.about["plane"] == "update":
            update = training.weights[rows.step] - training.weights[rows.step - 1]
            assert only(rows, "unit_u") == pytest.approx(np.linalg.norm(update), rel=1e-12)


def test_nothing_is_asked_of_a_device_whose_work_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(prober, "is_captured", lambda device: True)
    monkeypatch.setattr(DeviceTime, "take", lambda self: asked.append("event"))
    monkeypatch.setattr(laboratory, "free_bytes", lambda device: asked.append("memory"))
    training = BowlTraining(steps=20)
    assert not asked and training.prober.is_active and training.prober.points == 0


def test_a_finished_run_probes_no_more() -> None:
    calls: list[int] = []

    def counted(model: Any) -> Any:
        calls.append(1)
        return model()

    training = BowlTraining(steps=50, closures=[counted])
    training.monitor.finish()
    before = len(calls)
    for _ in range(50):
        training.model().backward()
        training.monitor.clip()
    assert len(calls) == before > 0


def test_what_is_known_when_the_run_ends_is_sent() -> None:
    training = BowlTraining(steps=61)
    known = training.prober.points
    training.monitor.finish()
    parts = [("line", "points"), ("surface", "points"), ("trajectory", "points")]
    sent = sum(len(rows.values["loss"]) for part in parts for rows in training.rows(*part))
    trials = 2
    assert sent == known - trials > 20
