"""What is asked of one training: done at the next clip, or refused with a reason, recorded, never in the user's way."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import gradwatch
import pytest
import torch
from gradwatch.clipping.strategy import Strategy
from gradwatch.control import Control, OnCheckpoint
from gradwatch.monitor import Monitor
from gradwatch.recorder import SCALARS
from torch import nn

from tests.client_hook.conftest import KeepingSink, monitor_of

ALL = ("set_threshold", "stop", "checkpoint", "probe_landscape")
_numbers = itertools.count()


class Training:
    """A linear model and its monitor; the gradient's norm is 6 at every step."""

    def __init__(self, strategy: Strategy, sink: KeepingSink, on_checkpoint: OnCheckpoint | None = None) -> None:
        torch.manual_seed(0)
        self.model, self.sink = nn.Linear(4, 1, bias=False), sink
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.control = Control(ALL, [f"training {next(_numbers)}"], on_checkpoint)
        self.monitor = monitor_of(self.model, [self.optimizer], strategy, sink, control=self.control)

    def step(self, *commands: Mapping[str, Any]) -> None:
        self.sink.asked = list(commands)
        self.optimizer.zero_grad()
        self.model(torch.full((1, 4), 3.0)).sum().backward()
        self.monitor.clip()
        self.optimizer.step()

    @property
    def told(self) -> list[tuple[int, str]]:
        assert {name for _, name, _ in self.sink.events} <= {"control"}
        return [(step, text) for step, _, text in self.sink.events]


def threshold(value: Any) -> dict[str, Any]:
    return {"command": "set_threshold", "value": value, "by": "ann", "id": "1"}


def test_a_threshold_is_in_force_at_the_clip_that_takes_it(sink: KeepingSink) -> None:
    training = Training(gradwatch.GlobalNorm(1.0), sink)
    training.step()
    training.step(threshold(0.5))
    weight = training.model.weight.detach().clone()
    training.step(threshold(3))
    assert training.told == [
        (1, "set_threshold: from 1 to 0.5; asked for by ann"),
        (2, "set_threshold: from 0.5 to 3; asked for by ann"),
    ]
    (rows,) = sink.rows()
    assert rows.scalars[:, SCALARS.index("threshold")].tolist() == [1.0, 0.5, 3.0]
    assert torch.allclose(weight - training.model.weight, torch.full((1, 4), 0.1 * 3.0 / 2))
    assert training.monitor.threshold == 3.0


@pytest.mark.parametrize(
    "strategy",
    [
        gradwatch.Value(0.1),
        gradwatch.PerLayer(1.0),
        gradwatch.PerGroup([1.0]),
        gradwatch.AGC(0.1),
        gradwatch.AutoClip(cap=1.0),
        gradwatch.Normalize(1.0),
        gradwatch.GlobalNorm(lambda step: 1.0),
    ],
)
def test_every_strategy_that_clips_takes_a_threshold(strategy: Strategy, sink: KeepingSink) -> None:
    training = Training(strategy, sink)
    training.step()
    training.step(threshold(0.25))
    training.step()
    assert training.monitor.threshold == pytest.approx(0.25)
    ((step, text),) = training.told
    assert step == 1 and text.endswith("to 0.25; asked for by ann")


@pytest.mark.parametrize("value", [0, -1.0, True, "1", None, float("nan"), float("inf"), [1.0]])
def test_what_is_no_threshold_changes_nothing(value: Any, sink: KeepingSink, capsys: Any) -> None:
    training = Training(gradwatch.GlobalNorm(1.0), sink)
    training.step()
    training.step(threshold(value))
    assert training.monitor.threshold == 1.0
    text = f"set_threshold was not done: a threshold must be a finite number above 0, not {value!r}; asked for by ann"
    assert training.told == [(1, text)]
    assert capsys.readouterr().err == f"gradwatch: step 1: {text}\n"


def test_the_drop_ins_own_threshold_is_not_overruled(sink: KeepingSink) -> None:
    training = Training(gradwatch.GlobalNorm(1.0), sink)
    training.step()
    sink.asked = [threshold(0.5)]
    training.monitor.clip_parameters(list(training.model.parameters()), gradwatch.GlobalNorm(2.0), "record")
    assert training.monitor.threshold == 1.0 and "gradwatch.clip_grad_norm_" in training.told[0][1]


def test_a_checkpoint_has_the_weights_before_the_step_and_says_where_to_go_on(sink: KeepingSink) -> None:
    kept: list[Any] = []

    def save(monitor: Monitor) -> None:
        kept.append((training.model.weight.detach().clone(), monitor.state_dict(), torch.is_grad_enabled()))

    training = Training(gradwatch.GlobalNorm(1.0), sink, save)
    training.step()
    training.step()
    weight = training.model.weight.detach().clone()
    training.step({"command": "checkpoint"}, threshold(0.5))
    ((saved, state, has_grad_mode),) = kept
    assert torch.equal(saved, weight) and not torch.equal(saved, training.model.weight)
    assert state == {"step": 2, "strategy": {"threshold": 1.0}} and has_grad_mode
    assert [step for step, _ in training.told] == [2, 2]
    assert (
        training.told[0][1]
        == "checkpoint: on_checkpoint was called, with the weights before step 2; asked for by someone"
    )


def test_a_checkpoint_that_fails_leaves_the_training_as_it_was(sink: KeepingSink, capsys: Any) -> None:
    def fail(monitor: Monitor) -> None:
        raise OSError("no space left on device")

    training, plain = (
        Training(gradwatch.GlobalNorm(1.0), sink, fail),
        Training(gradwatch.GlobalNorm(1.0), KeepingSink()),
    )
    for commands in ((), ({"command": "checkpoint", "by": "ann"},), ()):
        training.step(*commands)
        plain.step()
    assert torch.equal(training.model.weight, plain.model.weight)
    ((step, text),) = training.told
    assert step == 1 and "checkpoint failed: OSError('no space left on device'); asked for by ann" in text
    assert text in capsys.readouterr().err


def test_ctrl_c_within_a_checkpoint_is_the_users(sink: KeepingSink) -> None:
    def interrupt(monitor: Monitor) -> None:
        raise KeyboardInterrupt

    training = Training(gradwatch.GlobalNorm(1.0), sink, interrupt)
    training.step()
    with pytest.raises(KeyboardInterrupt):
        training.step({"command": "checkpoint"})
    training.step()
    assert training.monitor.step == 2


def test_the_loop_reads_that_it_should_stop_and_the_run_says_why_it_ended(sink: KeepingSink) -> None:
    training = Training(gradwatch.GlobalNorm(1.0), sink)
    training.step()
    assert not training.monitor.should_stop
    training.step({"command": "stop", "by": "ann"})
    assert training.monitor.should_stop
    training.monitor.finish()
    assert sink.ends == [("finished", "stopped as asked")]
    assert training.monitor.should_stop  # a loop may look after the end, too
    assert training.told == [(1, "stop: monitor.should_stop is true from here on; asked for by ann")]


@pytest.mark.parametrize("name", ["reboot", None, ["stop"]])
def test_an_unknown_command_is_refused_by_name(name: Any, sink: KeepingSink) -> None:
    training = Training(gradwatch.GlobalNorm(1.0), sink)
    training.step()
    training.step({"command": name})
    ((_, text),) = training.told
    assert repr(name) in text and "checkpoint, probe_landscape, set_threshold, stop" in text


def test_what_the_script_does_not_offer_is_not_done(sink: KeepingSink) -> None:
    training = Training(gradwatch.GlobalNorm(1.0), sink)
    training.control._offered = ["stop"]
    training.step()
    for command in (threshold(0.5), {"command": "checkpoint"}, {"command": "probe_landscape"}):
        training.step(command)
    assert training.monitor.threshold == 1.0 and len(training.told) == 3
    assert all("not among what its script offers, which is stop" in text for _, text in training.told)


def test_surfaces_wait_for_the_prober_and_the_oldest_make_room(sink: KeepingSink) -> None:
    training = Training(gradwatch.GlobalNorm(1.0), sink)
    training.step()
    training.step(*({"command": "probe_landscape", "id": number} for number in range(10)))
    assert [command["id"] for command in training.control.take_surfaces()] == list(range(2, 10))
    assert training.control.take_surfaces() == [] and training.told == []


def test_without_torch_distributed_the_ranks_of_a_launch_are_not_parted(
    sink: KeepingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    training = Training(gradwatch.GlobalNorm(1.0), sink)
    training.step()
    training.step(threshold(0.5), {"command": "stop"})
    assert training.monitor.threshold == 1.0 and not training.monitor.should_stop
    assert [("torch.distributed" in text, step) for step, text in training.told] == [(True, 1)] * 2


def test_a_copy_obeys_nobody(sink: KeepingSink) -> None:
    training = Training(gradwatch.GlobalNorm(1.0), sink)
    training.step()
    twin = copy.deepcopy(training.monitor)
    sink.asked = [{"command": "stop"}]
    twin.clip()
    assert not twin.should_stop and sink.asked
    twin.finish()


def test_a_finished_monitor_obeys_nobody(sink: KeepingSink) -> None:
    training = Training(gradwatch.GlobalNorm(1.0), sink)
    training.step()
    training.monitor.finish()
    training.step({"command": "stop"})
    assert not training.monitor.should_stop


@pytest.mark.parametrize(
    ("arguments", "error", "advice"),
    [
        ({"on_checkpoint": print}, ValueError, "control=True"),
        ({"control": True, "on_checkpoint": "save"}, TypeError, "a function of the monitor"),
    ],
)
def test_wrong_arguments_say_what_to_write(arguments: Any, error: type[Exception], advice: str) -> None:
    with pytest.raises(error, match=advice):
        gradwatch.watch(nn.Linear(1, 1), clip=1.0, **arguments)
