"""Folding into fused optimizers, against torch's clipping and the same step; and where nothing may be folded."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.strategy import Strategy
from gradwatch.clipping.value import Value
from gradwatch.monitor import Monitor
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from tests.client_hook.conftest import KeepingSink, monitor_of

MAKE: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda parameters: SGD(parameters, lr=0.05, fused=True),
    "SGD momentum": lambda parameters: SGD(parameters, lr=0.05, momentum=0.9, fused=True),
    "Adam": lambda parameters: Adam(parameters, lr=0.01, fused=True),
    "AdamW": lambda parameters: AdamW(parameters, lr=0.01, fused=True),
    "Adagrad": lambda parameters: Adagrad(parameters, lr=0.05, fused=True),
}


def model_of(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))


def backward(model: nn.Module, step: int, scale: float = 10.0) -> None:
    generator = torch.Generator().manual_seed(step)
    (model(torch.randn(16, 6, generator=generator)) * scale).square().mean().backward()


def trained(model: nn.Module, optimizer: Optimizer, clip: Callable[[], Any], steps: int = 12) -> list[Tensor]:
    """The parameters after each step."""
    states = []
    for step in range(steps):
        optimizer.zero_grad()
        backward(model, step)
        clip()
        optimizer.step()
        states.append(torch.cat([parameter.detach().ravel() for parameter in model.parameters()]))
    return states


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def folding(monitor: Monitor, model: nn.Module, step: int) -> bool:
    """Whether a clip leaves the gradients as they are, although they are above the threshold."""
    for parameter in model.parameters():
        parameter.grad = None
    backward(model, step)
    before = gradients(model)
    monitor.clip()
    return all(torch.equal(one, other) for one, other in zip(before, gradients(model), strict=True))


@pytest.mark.parametrize("kind", MAKE)
def test_a_folded_training_is_torchs(kind: str, sink: KeepingSink) -> None:
    ours, theirs = model_of(), model_of()
    optimizer = MAKE[kind](ours.parameters())
    monitor = monitor_of(ours, [optimizer], GlobalNorm(1.0), sink)
    reference = trained(
        theirs, MAKE[kind](theirs.parameters()), lambda: torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    )
    folded = trained(ours, optimizer, monitor.clip)
    for one, expected in zip(folded, reference, strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6)
    assert folding(monitor, ours, 50)
    optimizer.step()
    assert not hasattr(optimizer, "grad_scale") and not hasattr(optimizer, "found_inf")
    (rows,) = sink.rows()
    assert (rows.scalars[:, 1] > 1.0).all() and rows.scalars[:, 4].all()


def test_after_a_folded_step_the_gradients_are_the_clipped_ones(sink: KeepingSink) -> None:
    model = model_of()
    optimizer = AdamW(model.parameters(), fused=True)
    monitor = monitor_of(model, [optimizer], GlobalNorm(0.5), sink)
    trained(model, optimizer, monitor.clip, 2)
    assert folding(monitor, model, 9)
    optimizer.step()
    assert torch.nn.utils.get_total_norm(gradients(model)).item() == pytest.approx(0.5, rel=1e-4)


def not_fused(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=0.01)


def one_group_not_fused(model: nn.Module) -> Optimizer:
    optimizer = AdamW(model.parameters(), lr=0.01, fused=True)
    first, *rest = list(model.parameters())
    optimizer.param_groups[0]["params"] = [first]
    optimizer.add_param_group({"params": rest, "fused": False})
    return optimizer


def loaded_from_another(model: nn.Module) -> Optimizer:
    optimizer = AdamW(model.parameters(), lr=0.01, fused=True)
    optimizer.load_state_dict(AdamW(model.parameters(), lr=0.01, fused=False).state_dict())
    return optimizer


def subclassed(model: nn.Module) -> Optimizer:
    class Own(AdamW):
        pass

    return Own(model.parameters(), lr=0.01, fused=True)


def of_some_parameters(model: nn.Module) -> Optimizer:
    return AdamW(list(model.parameters())[:2], lr=0.01, fused=True)


@pytest.mark.parametrize("make", [not_fused, one_group_not_fused, loaded_from_another, subclassed, of_some_parameters])
def test_elsewhere_gradients_are_multiplied(make: Callable[[nn.Module], Optimizer], sink: KeepingSink) -> None:
    ours, theirs = model_of(), model_of()
    optimizer = make(ours)
    monitor = monitor_of(ours, [optimizer], GlobalNorm(1.0), sink)
    reference = trained(theirs, make(theirs), lambda: torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0), 4)
    for one, other in zip(trained(ours, optimizer, monitor.clip, 4), reference, strict=True):
        assert torch.equal(one, other)
    assert not folding(monitor, ours, 50)


@pytest.mark.parametrize("strategy", [GlobalNorm(1.0), Value(0.01)], ids=["fold off", "Value"])
def test_only_a_common_factor_is_folded_and_only_if_wanted(strategy: Strategy, sink: KeepingSink) -> None:
    model = model_of()
    optimizer = AdamW(model.parameters(), fused=True)
    monitor = monitor_of(model, [optimizer], strategy, sink, fold=isinstance(strategy, Value))
    trained(model, optimizer, monitor.clip, 4)
    assert not folding(monitor, model, 9)


def test_nothing_is_folded_before_a_step_was_seen_nor_after_one_that_was_left_out(sink: KeepingSink) -> None:
    model = model_of()
    optimizer = AdamW(model.parameters(), fused=True)
    monitor = monitor_of(model, [optimizer], GlobalNorm(0.5), sink)
    assert not folding(monitor, model, 0)
    optimizer.step()
    assert folding(monitor, model, 1)
    assert not folding(monitor, model, 2)  # the user left the step before this one out
    assert sink.events == []


def test_a_closure_gets_the_gradients_clipped_and_computes_its_own(sink: KeepingSink) -> None:
    model = model_of()
    optimizer = SGD(model.parameters(), lr=0.01, fused=True)
    monitor = monitor_of(model, [optimizer], GlobalNorm(0.5), sink)
    trained(model, optimizer, monitor.clip, 3)
    assert folding(monitor, model, 9)
    seen: list[float] = []

    def closure() -> float:
        seen.append(torch.nn.utils.get_total_norm(gradients(model)).item())
        return 0.0

    optimizer.step(closure)
    assert seen == [pytest.approx(0.5, rel=1e-5)] and not hasattr(optimizer, "grad_scale")


def test_an_exception_in_a_step_leaves_nothing_behind(sink: KeepingSink) -> None:
    model = model_of()
    optimizer = SGD(model.parameters(), lr=0.01, fused=True)
    monitor = monitor_of(model, [optimizer], GlobalNorm(0.5), sink)
    trained(model, optimizer, monitor.clip, 3)
    assert folding(monitor, model, 9)
    wrong = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["lr"] = "wrong"
    with pytest.raises(TypeError):
        optimizer.step()
    assert hasattr(optimizer, "grad_scale")
    optimizer.param_groups[0]["lr"] = wrong
    assert not folding(monitor, model, 10)
    assert not hasattr(optimizer, "grad_scale")


def test_groups_that_stop_being_fused_before_the_step_are_multiplied(sink: KeepingSink) -> None:
    model = model_of()
    optimizer = SGD(model.parameters(), lr=0.01, fused=True)
    monitor = monitor_of(model, [optimizer], GlobalNorm(0.5), sink)
    trained(model, optimizer, monitor.clip, 3)
    assert folding(monitor, model, 9)
    optimizer.param_groups[0]["fused"] = False
    optimizer.step()
    assert torch.nn.utils.get_total_norm(gradients(model)).item() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
@pytest.mark.parametrize("warm", [False, True], ids=["compiled from the start", "compiled later"])
def test_a_compiled_step_loses_no_clip(warm: bool, sink: KeepingSink) -> None:
    ours, theirs = model_of(), model_of()
    optimizer, reference = (AdamW(model.parameters(), lr=0.01, fused=True) for model in (ours, theirs))
    monitor = monitor_of(ours, [optimizer], GlobalNorm(0.5), sink)
    if warm:
        monitor.clip()
        optimizer.step()
    compiled = torch.compile(optimizer.step, backend="eager", fullgraph=False)
    for step in range(6):
        for model in (ours, theirs):
            model.zero_grad()
            backward(model, step)
        monitor.clip()
        compiled()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        reference.step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("give_scaler", [True, False], ids=["scaler given", "unscaled by the user"])
def test_under_a_grad_scaler(give_scaler: bool, sink: KeepingSink) -> None:
    ours, theirs = model_of(), model_of()
    optimizer, reference = (SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True) for model in (ours, theirs))
    monitor = monitor_of(ours, [optimizer], GlobalNorm(0.5), sink)
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3) for _ in range(2)]
    for step in range(8):
        for model, stepper, scaler in ((ours, optimizer, scalers[0]), (theirs, reference, scalers[1])):
            stepper.zero_grad()
            loss = (model(torch.ones(4, 6) * (step + 1)) * 10).square().mean()
            scaler.scale(loss * (float("inf") if step == 4 else 1.0)).backward()
            if model is theirs or not give_scaler:
                scaler.unscale_(stepper)
            if model is theirs:
                torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            else:
                monitor.clip(scaler=scaler if give_scaler else None)
            scaler.step(stepper)
            scaler.update()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert scalers[0].get_scale() == scalers[1].get_scale()
    (rows,) = sink.rows()
    assert rows.scalars[:, 8].tolist() == [0, 0, 0, 0, 2 if give_scaler else 0, 0, 0, 0]


def test_found_inf_leaves_parameters_and_state_untouched(sink: KeepingSink) -> None:
    model = model_of()
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    monitor = monitor_of(model, [optimizer], GlobalNorm(0.5), sink)
    fold = monitor._engine.fold
    backward(model, 0)
    assert fold is not None and not fold.can_skip([optimizer])
    trained(model, optimizer, monitor.clip, 2)
    assert fold.can_skip([optimizer])
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    for scale in (1.0, 0.5):
        backward(model, 9)
        fold.arm([optimizer], torch.tensor(scale), torch.tensor(True))
        optimizer.step()
    after = (model.state_dict(), optimizer.state_dict())
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    for place, state in before[1]["state"].items():
        assert torch.equal(state["momentum_buffer"], after[1]["state"][place]["momentum_buffer"])


def test_our_skip_joins_the_scalers_own(sink: KeepingSink) -> None:
    model = model_of()
    optimizer = SGD(model.parameters(), lr=0.01, fused=True)
    monitor = monitor_of(model, [optimizer], GlobalNorm(0.5), sink)
    trained(model, optimizer, monitor.clip, 2)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer.zero_grad()
    scaler.scale(model(torch.ones(4, 6)).square().mean()).backward()
    monitor.clip(scaler=scaler)
    fold = monitor._engine.fold
    assert fold is not None
    fold.arm([optimizer], torch.tensor(1.0), torch.tensor(True))
    before = torch.cat([parameter.detach().ravel() for parameter in model.parameters()])
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(before, torch.cat([parameter.detach().ravel() for parameter in model.parameters()]))
    assert scaler.get_scale() == 8.0


def test_two_optimizers_under_one_norm_are_folded_together(sink: KeepingSink) -> None:
    ours, theirs = model_of(), model_of()

    def pair(model: nn.Module) -> list[Optimizer]:
        halves = list(model.parameters())
        return [AdamW(halves[:2], lr=0.01, fused=True), SGD(halves[2:], lr=0.01, fused=True)]

    own, reference = pair(ours), pair(theirs)
    monitor = monitor_of(ours, own, GlobalNorm(0.5), sink)
    for step in range(5):
        for model in (ours, theirs):
            model.zero_grad()
            backward(model, step)
        monitor.clip()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        for optimizer in own + reference:
            optimizer.step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert folding(monitor, ours, 9)


def test_hooks_keep_no_monitor_alive_and_copies_have_none(sink: KeepingSink) -> None:
    model = model_of()
    optimizer = AdamW(model.parameters(), fused=True)
    monitor = monitor_of(model, [optimizer], GlobalNorm(0.5), sink)
    trained(model, optimizer, monitor.clip, 3)
    twin = copy.deepcopy(optimizer)
    assert not twin._optimizer_step_pre_hooks
    ref = weakref.ref(monitor)
    gc.disable()
    try:
        del monitor
        assert ref() is None
    finally:
        gc.enable()
    optimizer.step()


class Pair:
    """Two layers whose steps of SGD with lr = 1 move each weight by its gradient; every gradient has the norm 20."""

    def __init__(self, sink: KeepingSink, dtype: torch.dtype = torch.float32, **options: Any) -> None:
        self.layers = nn.ModuleList([nn.Linear(2, 2, bias=False, dtype=dtype) for _ in range(2)])
        self.optimizer = SGD(self.layers.parameters(), lr=1.0, fused=True)
        self.monitor = monitor_of(self.layers, [self.optimizer], GlobalNorm(1.0), sink, **options)
        for _ in range(2):
            self.backward()
            self.monitor.clip()
            self.optimizer.step()

    def backward(self, element: float = 10.0) -> None:
        for parameter in self.layers.parameters():
            parameter.grad = torch.full_like(parameter, element)

    def moved(self) -> list[float]:
        """By how much the next step moves each layer, as a norm."""
        before = [parameter.detach().clone() for parameter in self.layers.parameters()]
        self.optimizer.step()
        pairs = zip(self.layers.parameters(), before, strict=True)
        return [round(float((now.detach() - was).norm()), 4) for now, was in pairs]


BOTH = [round(0.5**0.5, 4)] * 2  # each of two equal layers under a total norm of 1


def test_watching_again_after_a_step_left_out_leaves_nothing_behind(sink: KeepingSink) -> None:
    pair = Pair(sink)
    pair.backward()
    pair.monitor.clip()  # and the step never comes
    again = monitor_of(pair.layers, [pair.optimizer], GlobalNorm(1.0), sink)
    for _ in range(3):
        pair.backward()
        again.clip()
        assert pair.moved() == BOTH and not hasattr(pair.optimizer, "grad_scale")
    assert len(pair.optimizer._optimizer_step_pre_hooks) == 1


def test_a_monitor_let_go_with_a_clip_pending_clips_that_step_and_no_other(sink: KeepingSink) -> None:
    pair = Pair(sink)
    pair.backward()
    pair.monitor.clip()
    del pair.monitor
    assert pair.moved() == BOTH
    pair.backward()
    assert pair.moved() == [20.0, 20.0]


def test_drop_ins_clip_at_once_and_only_what_they_are_given(sink: KeepingSink) -> None:
    pair = Pair(sink)
    pair.backward()
    pair.monitor.clip_parameters(list(pair.layers[0].parameters()), GlobalNorm(1.0), "record")
    assert gradients(pair.layers)[0].norm().item() == pytest.approx(1.0)
    pair.monitor.clip_parameters(list(pair.layers[1].parameters()), GlobalNorm(2.0), "record")
    assert pair.moved() == [1.0, 2.0]


def test_a_second_clip_before_the_step_meets_what_the_first_has_left(sink: KeepingSink) -> None:
    pair = Pair(sink)
    pair.backward()
    pair.monitor.clip()
    pair.monitor.clip_parameters(list(pair.layers.parameters()), Value(5.0), "record")
    assert pair.moved() == BOTH


def test_a_coefficient_meets_no_other_gradients_than_those_it_was_meant_for(sink: KeepingSink) -> None:
    pair = Pair(sink)
    pair.backward()
    pair.monitor.clip()
    pair.optimizer.zero_grad()
    pair.backward(0.1)
    assert pair.moved() == [0.2, 0.2]


def test_a_fallback_after_a_clip_without_a_step_clips_once(
    sink: KeepingSink, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = Pair(sink)
    pair.backward()
    pair.monitor.clip()
    pair.backward()

    def fail(*arguments: Any) -> Any:
        raise RuntimeError("planted")

    monkeypatch.setattr(pair.monitor.strategy, "decide", fail)
    pair.monitor.clip()
    assert pair.moved() == BOTH and "planted" in capsys.readouterr().err


def test_a_parameter_of_two_optimizers_is_not_folded(sink: KeepingSink) -> None:
    layer = nn.Linear(2, 2, bias=False)
    optimizers: list[Optimizer] = [SGD(layer.parameters(), lr=1.0, fused=True) for _ in range(2)]
    monitor = monitor_of(layer, optimizers, GlobalNorm(1.0), sink)
    for _ in range(3):
        layer.weight.grad = torch.full((2, 2), 10.0)
        monitor.clip()
        for optimizer in optimizers:
            before = layer.weight.detach().clone()
            optimizer.step()
            assert float((layer.weight.detach() - before).norm()) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(("dtype", "element"), [(torch.float64, 1e45), (torch.float32, 1e38)])
def test_coefficients_too_small_for_an_inverse_are_multiplied(
    dtype: torch.dtype, element: float, sink: KeepingSink
) -> None:
    pair = Pair(sink, dtype)
    pair.monitor.threshold = 1e-2
    pair.backward(element)
    pair.monitor.clip()
    assert pair.moved() == pytest.approx([1e-2 * 0.5**0.5] * 2, abs=1e-4)


def test_an_empty_first_group_is_no_obstacle(sink: KeepingSink) -> None:
    layer = nn.Linear(2, 2, bias=False)
    groups: list[dict[str, Any]] = [{"params": []}, {"params": list(layer.parameters())}]
    optimizer = SGD(groups, lr=1.0, fused=True)
    monitor = monitor_of(layer, [optimizer], GlobalNorm(1.0), sink)
    for _ in range(4):
        layer.weight.grad = torch.full((2, 2), 10.0)
        monitor.clip()
        optimizer.step()
    assert sink.events == [] and len(sink.rows()[0].step) == 4


def test_parameters_exchanged_in_an_optimizer_are_clipped(sink: KeepingSink) -> None:
    pair = Pair(sink)
    other = nn.Linear(2, 2, bias=False)
    pair.optimizer.param_groups.clear()
    pair.optimizer.add_param_group({"params": list(other.parameters()), "fused": True})
    pair.layers = nn.ModuleList([other])
    pair.backward()
    for parameter in pair.monitor._table.parameters[:2]:
        parameter.grad = None
    pair.monitor.clip()
    assert pair.moved() == [1.0]
