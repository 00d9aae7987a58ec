"""The shadow: the same function at other weights, and nothing of it left in the original."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from gradwatch.probe.shadow import Shadow, UnfitProbe, bare, copies, model_bytes, place, place_between, trained
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2))


INPUTS = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def closure(model: Any) -> Tensor:
    loss: Tensor = model(INPUTS).square().mean()
    return loss


def loss_at(model: nn.Module, weights: list[Tensor]) -> Tensor:
    """The loss of a plain copy in evaluation mode with these weights."""
    other = copy.deepcopy(model).eval()
    with torch.no_grad():
        for mine, given in zip(other.parameters(), weights, strict=True):
            mine.copy_(given)
        return closure(other)


def test_it_is_the_same_function_at_other_weights() -> None:
    model = network()
    shadow = Shadow(model)
    new = [weight + 0.3 for weight in copies(trained(model))]
    for alpha in (0.0, 1.0, -0.5, 4.0):
        place_between(shadow.weights, copies(trained(model)), new, alpha)
        expected = loss_at(model, [weight + alpha * 0.3 for weight in model.parameters()])
        assert torch.allclose(shadow.loss(closure, shadow.follow(), 0), expected)
    place_between(shadow.weights, copies(trained(model)), new, 1.0)
    assert all(map(torch.equal, shadow.weights, new))
    place(shadow.weights, new, (2.0, new), (0.0, new))
    assert torch.allclose(shadow.weights[0], 3 * new[0])


def test_buffers_are_those_of_the_anchor_at_every_look() -> None:
    model = network()
    shadow = Shadow(model)
    place(shadow.weights, trained(model))
    anchored = shadow.follow()
    before = shadow.loss(closure, anchored, 0)
    model(INPUTS * 5)  # the training's statistics move on
    shadow.loss(lambda given: closure(given.train()), shadow.follow(), 0)  # and so do the shadow's own
    assert torch.equal(shadow.loss(closure, anchored, 0), before)
    assert not torch.equal(shadow.loss(closure, shadow.follow(), 0), before)


def test_a_cache_that_a_look_makes_larger_is_its_own_affair() -> None:
    class Caching(nn.Linear):
        rows: Tensor

        def __init__(self) -> None:
            super().__init__(4, 2)
            self.register_buffer("rows", torch.zeros(2))

        def forward(self, inputs: Tensor) -> Tensor:
            if len(self.rows) < len(inputs):
                self.register_buffer("rows", torch.zeros(len(inputs)))
                self.register_buffer("columns", torch.zeros(3))
            return super().forward(inputs) + self.rows[: len(inputs), None]

    model = Caching()
    shadow = Shadow(model)
    place(shadow.weights, trained(model))
    losses = [shadow.loss(closure, shadow.follow(), 0) for _ in range(3)]
    assert losses[0] == losses[1] == losses[2] and len(model.get_buffer("rows")) == 2
    assert shadow.is_current


def test_two_places_see_the_same_random_numbers() -> None:
    model = network()
    shadow = Shadow(model)
    place(shadow.weights, trained(model))
    losses = [shadow.loss(lambda given: closure(given.train()), shadow.follow(), seed) for seed in (0, 0, 1)]
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])
    assert shadow.mode == "train"


def test_tied_and_frozen_weights_stay_tied_and_frozen() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    shadow = Shadow(model)
    assert len(shadow.weights) == 3
    assert shadow.model.get_parameter("0.weight") is shadow.model.get_parameter("1.weight")
    with torch.no_grad():
        model[2].weight.add_(1)
    shadow.follow()
    assert torch.equal(shadow.model.get_parameter("2.weight"), model[2].weight)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")  # the hook it works by is what is tested
def test_hooks_of_others_stay_behind_and_those_that_make_the_weights_come_along() -> None:
    calls: list[int] = []
    model: Any = nn.Sequential(weight_norm(nn.Linear(4, 3)), parametrizations.spectral_norm(nn.Linear(3, 2)))
    model(INPUTS)
    model[0].register_forward_hook(lambda module, inputs, output: calls.append(1))
    model.register_forward_pre_hook(lambda module, args, kwargs: calls.append(2), with_kwargs=True)
    with torch.no_grad():
        expected = closure(model.eval())
    model.train()
    calls.clear()
    shadow = Shadow(model)
    place(shadow.weights, trained(model))
    assert torch.allclose(shadow.loss(closure, shadow.follow(), 0), expected)
    assert shadow.hooks_left_out == 2 and calls == []
    assert len(model[0]._forward_hooks) == 1 and len(model._forward_pre_hooks) == 1


def test_wrappers_are_taken_off() -> None:
    model = network()
    wrapped: Any = torch.compile(nn.DataParallel(model), backend="eager")
    assert bare(wrapped) is model


def test_parts_that_would_wait_for_other_ranks_are_refused() -> None:
    model = nn.ModuleDict({"generator": nn.DataParallel(network()), "discriminator": network()})
    with pytest.raises(UnfitProbe, match="wrap the whole model"):
        bare(model)


def test_batch_statistics_are_those_of_the_probing_rank_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
    synchronised = convert(copy.deepcopy(model))
    losses = []
    for one in (model, synchronised):
        shadow = Shadow(one)
        place(shadow.weights, trained(one))
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        losses.append(shadow.loss(lambda given: closure(given.train()), shadow.follow(), 0))
    assert torch.equal(losses[0], losses[1])
    assert any(isinstance(module, nn.SyncBatchNorm) for module in synchronised.modules())


def test_what_cannot_be_copied_is_refused_with_the_reason() -> None:
    model = network()
    model.lock = threading.Lock()
    with pytest.raises(UnfitProbe, match="cannot be deep-copied.*TypeError"):
        Shadow(model)


class Shared(nn.Sequential):
    """As some write frozen teachers."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return self


class Lending(nn.Linear):
    """Its copies are new and see the same weights."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Lending:
        other = Lending(self.in_features, self.out_features)
        other.weight = nn.Parameter(self.weight.detach())
        return other


@pytest.mark.parametrize("part", [Shared(nn.BatchNorm1d(2), nn.Dropout()), Lending(2, 2)])
def test_a_model_whose_copy_is_partly_itself_is_refused_and_left_alone(part: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 2), part)
    with pytest.raises(UnfitProbe, match="shares modules or weights"):
        Shadow(model)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("found", "match"),
    [
        (torch.zeros(3), r"shape \(3,\): average it"),
        (None, "not NoneType"),
        (True, "not bool"),
        (torch.zeros((), dtype=torch.complex64), "one number"),
        ("0.5", "not str"),
    ],
)
def test_a_probe_must_return_one_number(found: Any, match: str) -> None:
    model = network()
    shadow = Shadow(model)
    with pytest.raises(UnfitProbe, match=match):
        shadow.loss(lambda model: found, shadow.follow(), 0)


@pytest.mark.parametrize("found", [0.5, 2, torch.tensor([0.5]), torch.tensor([[7]])])
def test_plain_numbers_and_single_elements_will_do(found: Any) -> None:
    model = network()
    shadow = Shadow(model)
    loss = shadow.loss(lambda model: found, shadow.follow(), 0)
    assert loss.shape == () and float(loss) == float(found)


def test_a_probe_that_raises_is_named() -> None:
    model = network()
    shadow = Shadow(model)
    with pytest.raises(UnfitProbe, match="the probe raised ZeroDivisionError: division by zero"):
        shadow.loss(lambda model: 1 / 0, shadow.follow(), 0)


def test_a_probe_may_take_gradients_of_its_own_inputs() -> None:
    def with_gradient(model: Any) -> Tensor:
        torch.set_grad_enabled(True)  # and leaves the switch as it should not
        inputs = INPUTS.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(inputs).sum(), inputs)
        return slope.square().sum()

    model = network()
    shadow = Shadow(model)
    with torch.no_grad():
        assert float(shadow.loss(with_gradient, shadow.follow(), 0)) > 0
        assert not torch.is_grad_enabled()


def test_a_model_that_got_another_parameter_is_no_longer_the_one_copied() -> None:
    model = network()
    shadow = Shadow(model)
    assert shadow.is_current
    model[3].requires_grad_(False)
    assert not shadow.is_current
    model[3].requires_grad_(True)
    model.append(nn.Linear(2, 2))
    assert not shadow.is_current


def test_sizes_count_tied_weights_once() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    assert model_bytes(model) == (4 * (16 + 8 + 8) + 8, 4 * 16)
