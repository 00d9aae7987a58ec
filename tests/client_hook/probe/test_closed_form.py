"""The step in closed form against the step itself, taken by a copy of the optimizer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from gradwatch.probe import closed_form
from gradwatch.probe.closed_form import stepped, unsupported
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor import Shard
from torch.optim import SGD, Adam, AdamW, Optimizer

from tests.client_hook.measure.device import NoWaiting
from tests.client_hook.measure.sharding import sharded, two_ranks

SHAPES = [(5,), (3, 4), (), (2, 3, 2), (7, 1)]
EXACT = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 2**-6}
rates = st.floats(1e-4, 2.0)
decays = st.sampled_from([0.0, 1e-2, 0.7])
flags = st.booleans()
ways = st.sampled_from([{"foreach": False}, {"foreach": True}, {"fused": True}])
sgds = st.builds(
    lambda momentum, dampening, nesterov, **rest: {
        "momentum": momentum,
        "dampening": 0.0 if nesterov else dampening,
        "nesterov": nesterov and momentum > 0,
        **rest,
    },
    momentum=st.sampled_from([0.0, 0.5, 0.95]),
    dampening=st.sampled_from([0.0, 0.3]),
    nesterov=flags,
    lr=rates,
    weight_decay=decays,
    maximize=flags,
)
adams = st.fixed_dictionaries(
    {
        "lr": rates,
        "betas": st.sampled_from([(0.9, 0.999), (0.0, 0.9), (0.4, 0.0), (0.95, 0.95)]),
        "eps": st.sampled_from([1e-8, 1e-2]),
        "weight_decay": decays,
        "amsgrad": flags,
        "maximize": flags,
    }
)
choices = st.one_of(st.tuples(st.just(SGD), sgds), st.tuples(st.just(Adam), adams), st.tuples(st.just(AdamW), adams))


def normal(generator: torch.Generator, dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES]


def trained(build: Any, options: dict[str, Any], dtype: torch.dtype, steps: int, groups: int = 2) -> Optimizer:
    """An optimizer over SHAPES in some groups, the later of which have another learning rate and decay."""
    generator = torch.Generator().manual_seed(steps)
    parameters = [torch.nn.Parameter(weight) for weight in normal(generator, dtype)]
    grouped: list[dict[str, Any]] = [{"params": parameters[place::groups]} for place in range(groups)]
    for group in grouped[1:]:
        group.update(lr=options["lr"] * 0.3, weight_decay=0.05)
    optimizer: Optimizer = build(grouped, **options)
    for _ in range(steps):
        give(optimizer, [gradient * 3 for gradient in normal(generator, dtype)])
        optimizer.step()
    return optimizer


def members(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def give(optimizer: Optimizer, gradients: list[Tensor]) -> None:
    """``gradients`` in the order of SHAPES, whatever the order of the groups."""
    left = list(gradients)
    for parameter in members(optimizer):
        place = next(at for at, gradient in enumerate(left) if gradient.shape == parameter.shape)
        parameter.grad = left.pop(place).clone()


def by_itself(optimizer: Optimizer, gradients: list[Tensor]) -> list[Tensor]:
    """The weights after a real step of a copy."""
    twin = copy.deepcopy(optimizer)
    for parameter, gradient in zip(members(twin), gradients, strict=True):
        parameter.grad = gradient.clone()
    twin.step()
    return [parameter.detach() for parameter in members(twin)]


def alike(optimizer: Optimizer, gradients: list[Tensor], rel: float) -> None:
    parameters = members(optimizer)
    found, expected = stepped(optimizer, parameters, gradients), by_itself(optimizer, gradients)
    assert unsupported([optimizer], parameters) is None
    for ours, theirs, before in zip(found, expected, parameters, strict=True):
        assert ours.dtype is theirs.dtype and ours.shape == theirs.shape and not ours.requires_grad
        # Relative to what takes part in the sum, for the weight may cancel with its step.
        size = theirs.double().abs() + before.detach().double().abs()
        assert torch.all((ours.double() - theirs.double()).abs() <= rel * size + 1e-300)
    assert any(not torch.equal(theirs, before) for theirs, before in zip(expected, parameters, strict=True))


def drawn(seed: int, dtype: torch.dtype, optimizer: Optimizer) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype)
        for parameter in members(optimizer)
    ]


@settings(deadline=None, max_examples=150)
@given(choices, ways, st.integers(0, 12), st.integers(1, 3), st.integers(0, 99))
def test_a_step_in_double_precision(
    choice: tuple[Any, dict[str, Any]], way: dict[str, bool], steps: int, groups: int, seed: int
) -> None:
    build, options = choice
    optimizer = trained(build, {**options, **way}, torch.float64, steps, groups)
    alike(optimizer, drawn(seed, torch.float64, optimizer), EXACT[torch.float64])


@settings(deadline=None, max_examples=60)
@given(choices, ways, st.integers(0, 12), st.integers(0, 99))
def test_a_step_in_single_precision(
    choice: tuple[Any, dict[str, Any]], way: dict[str, bool], steps: int, seed: int
) -> None:
    build, options = choice
    optimizer = trained(build, {**options, **way}, torch.float32, steps)
    alike(optimizer, drawn(seed, torch.float32, optimizer), EXACT[torch.float32])


@pytest.mark.parametrize("build", [SGD, Adam, AdamW])
@pytest.mark.parametrize("steps", [0, 5])
def test_a_fused_step_of_half_precision_rounds_once(build: Any, steps: int) -> None:
    optimizer = trained(build, {"lr": 0.3, "weight_decay": 0.1, "fused": True}, torch.bfloat16, steps)
    alike(optimizer, drawn(1, torch.bfloat16, optimizer), 2**-8)


@pytest.mark.parametrize("build", [SGD, Adam, AdamW])
def test_a_plain_step_of_half_precision(build: Any) -> None:
    optimizer = trained(build, {"lr": 0.3, "weight_decay": 0.1, "foreach": False}, torch.bfloat16, 5)
    alike(optimizer, drawn(1, torch.bfloat16, optimizer), EXACT[torch.bfloat16])


def test_hyperparameters_that_are_tensors() -> None:
    choices: list[tuple[Any, dict[str, Any]]] = [
        (SGD, {"momentum": 0.9}),
        (Adam, {"fused": True}),
        (AdamW, {"foreach": False}),
    ]
    for build, options in choices:
        optimizer = trained(build, {"lr": torch.tensor(0.2), "weight_decay": 0.1, **options}, torch.float64, 4)
        alike(optimizer, drawn(2, torch.float64, optimizer), 1e-7)
    betas = (torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64))
    optimizer = trained(Adam, {"lr": 0.1, "betas": betas, "foreach": False}, torch.float64, 3)
    alike(optimizer, drawn(2, torch.float64, optimizer), EXACT[torch.float64])


def test_adam_that_decays_as_adamw_does() -> None:
    optimizer = trained(Adam, {"lr": 0.2, "weight_decay": 0.3, "decoupled_weight_decay": True}, torch.float64, 4)
    alike(optimizer, drawn(3, torch.float64, optimizer), EXACT[torch.float64])


@pytest.mark.parametrize("build", [SGD, Adam])
def test_some_parameters_in_another_order(build: Any) -> None:
    optimizer = trained(build, {"lr": 0.2}, torch.float64, 3, groups=3)
    gradients = drawn(4, torch.float64, optimizer)
    expected = by_itself(optimizer, gradients)
    order = [4, 0, 2]
    found = stepped(optimizer, [members(optimizer)[at] for at in order], [gradients[at] for at in order])
    for at, weight in zip(order, found, strict=True):
        torch.testing.assert_close(weight, expected[at], rtol=1e-13, atol=0)


def test_a_parameter_that_had_no_gradient_so_far() -> None:
    dampened = {"momentum": 0.9, "dampening": 0.5, "foreach": False}
    choices: list[tuple[Any, dict[str, Any]]] = [(SGD, dampened), (Adam, {"amsgrad": True})]
    for build, options in choices:
        optimizer = trained(build, {"lr": 0.2, **options}, torch.float64, 0)
        for _ in range(3):
            give(optimizer, drawn(1, torch.float64, optimizer))
            members(optimizer)[2].grad = None
            optimizer.step()
        alike(optimizer, drawn(5, torch.float64, optimizer), EXACT[torch.float64])


@pytest.mark.parametrize("build, options", [(SGD, {"momentum": 0.9, "nesterov": True}), (AdamW, {"amsgrad": True})])
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("maximize", [False, True])
def test_nothing_is_touched(build: Any, options: dict[str, Any], steps: int, maximize: bool) -> None:
    optimizer = trained(build, {"lr": 0.2, "maximize": maximize, **options}, torch.float64, steps)
    gradients = drawn(6, torch.float64, optimizer)
    give(optimizer, gradients)
    parameters = members(optimizer)
    held = [*parameters, *gradients, *(parameter.grad for parameter in parameters if parameter.grad is not None)]
    held += [value for state in optimizer.state.values() for value in state.values()]
    before = [(tensor.detach().clone(), tensor._version, tensor.data_ptr()) for tensor in held]
    keys = [list(state) for state in optimizer.state.values()]
    found = stepped(optimizer, parameters, gradients)
    for tensor, (value, version, place) in zip(held, before, strict=True):
        assert torch.equal(tensor, value) and tensor._version == version and tensor.data_ptr() == place
    assert [list(state) for state in optimizer.state.values()] == keys
    assert not {weight.data_ptr() for weight in found} & {place for _, _, place in before}


@pytest.mark.parametrize("build", [SGD, Adam])
def test_weights_are_taken_a_slice_at_a_time(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_form, "MOST_BYTES", 100)
    optimizer = trained(build, {"lr": 0.2}, torch.float64, 3, groups=1)
    sizes = []
    taken = closed_form._slices(members(optimizer), closed_form._groups(optimizer))
    for places, _ in taken:
        sizes.append([members(optimizer)[place].nbytes for place in places])
    assert sum(sizes, []) == [40, 96, 8, 96, 56]
    assert len(sizes) > 2 and all(len(some) == 1 or sum(some) <= 2 * 100 for some in sizes)
    alike(optimizer, drawn(7, torch.float64, optimizer), EXACT[torch.float64])


@contextmanager
def counted_on_a_device(optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The arithmetic for numbers that only a device knows, on numbers of the CPU."""
    with monkeypatch.context() as patching:
        patching.setattr(closed_form, "_on_host", lambda tensor: False)
        yield


@pytest.mark.parametrize("build", [Adam, AdamW])
@pytest.mark.parametrize("rate", [0.2, torch.tensor(0.2, dtype=torch.float64)])
@pytest.mark.parametrize("steps", [0, 1, 6])
def test_numbers_of_a_device_give_the_same(
    build: Any, rate: float | Tensor, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = trained(build, {"lr": rate, "weight_decay": 0.1, "fused": True}, torch.float64, steps)
    gradients = drawn(8, torch.float64, optimizer)
    expected = by_itself(optimizer, gradients)
    with counted_on_a_device(optimizer, monkeypatch):
        found = stepped(optimizer, members(optimizer), gradients)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7 if isinstance(rate, Tensor) else 1e-13, atol=0)


def test_a_rate_of_a_device_gives_the_same_for_sgd(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = torch.tensor(0.2, dtype=torch.float64)
    optimizer = trained(SGD, {"lr": rate, "momentum": 0.9}, torch.float64, 4)
    gradients = drawn(9, torch.float64, optimizer)
    expected = by_itself(optimizer, gradients)
    with counted_on_a_device(optimizer, monkeypatch):
        found = stepped(optimizer, members(optimizer), gradients)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    "build, options",
    [
        (SGD, {"momentum": 0.9, "nesterov": True}),
        (SGD, {"tensor_rate": True}),
        (Adam, {"fused": True, "amsgrad": True}),
        (Adam, {"capturable": True, "tensor_rate": True}),
        (AdamW, {"foreach": True}),
    ],
)
@pytest.mark.parametrize("stepping", [False, True])
def test_no_device_is_waited_for(build: Any, options: dict[str, Any], stepping: bool) -> None:
    """Under FakeTensorMode any ``.item()`` of a CUDA tensor raises."""
    with FakeTensorMode(), torch.no_grad():
        parameters = [torch.nn.Parameter(torch.empty(shape, device="cuda")) for shape in SHAPES]
        gradients = [torch.empty(shape, device="cuda") for shape in SHAPES]
        options = dict(options)
        rate = torch.empty((), device="cuda") if options.pop("tensor_rate", False) else 0.1
        # (Given afterwards: a constructor compares it with 0.)
        optimizer = build(parameters, **{"lr": 0.1, "weight_decay": 0.1, **options})
        optimizer.param_groups[0]["lr"] = rate
        if stepping:
            for parameter in parameters:
                optimizer.state[parameter] = made_up_state(build, parameter, options)
        with NoWaiting():  # type: ignore[no-untyped-call]
            assert unsupported([optimizer], parameters) is None
            found = stepped(optimizer, parameters, gradients)
    assert [weight.device.type for weight in found] == ["cuda"] * len(SHAPES)
    assert [(weight.shape, weight.dtype) for weight in found] == [(shape, torch.float32) for shape in SHAPES]


def made_up_state(build: Any, parameter: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
    if build is SGD:
        return {"momentum_buffer": torch.empty_like(parameter)} if options.get("momentum") else {}
    there = options.get("fused") or options.get("capturable")
    # A count on the host is known even here.
    step: Any = torch.empty((), device="cuda") if there else 3.0
    moments = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if options.get("amsgrad") else [])]
    return {"step": step, **{name: torch.empty_like(parameter) for name in moments}}


def test_what_is_not_supported_says_why() -> None:
    class Own(SGD):
        pass

    weight = torch.nn.Parameter(torch.ones(3))
    plain = SGD([weight], lr=0.1)
    assert unsupported([plain], [weight]) is None
    assert unsupported([], [weight]) == "There is no optimizer."
    assert unsupported([plain, plain], [weight]) == "There are several optimizers."
    assert unsupported([Own([weight], lr=0.1)], [weight]) == "The step of Own is not known in closed form."
    rms = torch.optim.RMSprop([weight])
    assert unsupported([rms], [weight]) == "The step of RMSprop is not known in closed form."
    assert unsupported([plain], [torch.nn.Parameter(torch.ones(3))]) == "A parameter is in no group of the optimizer."
    assert "differentiable" in str(unsupported([SGD([weight], lr=0.1, differentiable=True)], [weight]))
    whole = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    assert unsupported([SGD([whole], lr=0.1)], [whole]) == "A parameter is not real."
    weight.grad = torch.ones(3).to_sparse()
    assert unsupported([plain], [weight]) == "A parameter or its gradient is sparse."


def test_a_sharded_parameter_or_one_with_its_state_elsewhere_is_not_supported() -> None:
    with two_ranks() as mesh:
        shard = torch.nn.Parameter(sharded(torch.ones(2, 3), mesh, Shard(0)))
        assert unsupported([Adam([shard])], [shard]) == "A parameter is sharded over the ranks."
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = Adam([weight])
    optimizer.state[weight] = {"step": torch.tensor(1.0), "exp_avg": torch.ones(3, device="meta")}
    assert "another device" in str(unsupported([optimizer], [weight]))


def test_betas_on_a_device_are_not_supported() -> None:
    with FakeTensorMode():
        weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
        optimizer = Adam([weight])
        optimizer.param_groups[0]["betas"] = (torch.empty((), device="cuda"), torch.empty((), device="cuda"))
        assert "on the device" in str(unsupported([optimizer], [weight]))
