"""Where another gradient would have taken the weights, from the optimizer's state alone.

The arithmetic is that of torch 2.13 (torch/optim/sgd.py, adam.py, adamw.py), without its writing to anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

MOST_BYTES: Final = 64 << 20  # of weights taken at a time: what is in use beside the result is a few times this

_HALF: Final = (torch.float16, torch.bfloat16)

Scalar = float | Tensor  # a Tensor: 0-dimensional and on a device that the host does not wait for
Group = dict[str, Any]


def unsupported(optimizers: Sequence[Optimizer], parameters: Sequence[Tensor]) -> str | None:
    """Why ``stepped`` cannot be asked for these parameters, as a short sentence; None: it can."""
    if len(optimizers) != 1:
        return "There are several optimizers." if optimizers else "There is no optimizer."
    optimizer = optimizers[0]
    if type(optimizer) not in (SGD, Adam, AdamW):
        return f"The step of {type(optimizer).__name__} is not known in closed form."
    groups = _groups(optimizer)
    for parameter in parameters:
        group = groups.get(id(parameter))
        if group is None:
            return "A parameter is in no group of the optimizer."
        reason = _odd_parameter(parameter) or _odd_group(group) or _odd_state(optimizer, parameter)
        if reason is not None:
            return reason
    return None


def _groups(optimizer: Optimizer) -> dict[int, Group]:
    return {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}


def _odd_parameter(parameter: Tensor) -> str | None:
    if hasattr(parameter, "full_tensor"):
        return "A parameter is sharded over the ranks."
    if not parameter.is_floating_point():
        return "A parameter is not real."
    gradient = parameter.grad
    if parameter.layout is not torch.strided or gradient is not None and gradient.layout is not torch.strided:
        return "A parameter or its gradient is sparse."
    return None


def _odd_group(group: Group) -> str | None:
    if group.get("differentiable"):
        return "The optimizer's step is differentiable."
    numbers = [*group.get("betas", ()), group["weight_decay"]]
    if any(isinstance(_scalar(number), Tensor) for number in numbers):
        return "A hyperparameter other than the learning rate is on the device."
    return None


def _odd_state(optimizer: Optimizer, parameter: Tensor) -> str | None:
    state = optimizer.state.get(parameter, {})
    moved = [value for name, value in state.items() if isinstance(value, Tensor) and name != "step"]
    if any(value.device != parameter.device or value.shape != parameter.shape for value in moved):
        return "The optimizer's state is of another device or shape than its parameter."
    return None


@torch.no_grad()
def stepped(optimizer: Optimizer, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """The weights that ``optimizer.step()`` would give now, were ``gradients`` the gradients of ``parameters``.

    New tensors, one for each of ``parameters``; these, their gradients and the optimizer's state are only read, and no
    number is fetched from a device. ``gradients`` are as the step would use them: unscaled (``grad_scale`` and
    ``found_inf``, which a scaler or a folded clip leaves with the optimizer, are not looked at), shaped and typed like
    their parameters. To be asked only where ``unsupported`` has nothing to say.
    """
    adam = isinstance(optimizer, Adam)
    groups = _groups(optimizer)
    weights: list[Tensor | None] = [None] * len(parameters)
    for places, group in _slices(parameters, groups):
        chosen = [parameters[place] for place in places]
        states = [optimizer.state.get(parameter, {}) for parameter in chosen]
        fed = _Fed([parameter.detach() for parameter in chosen], [gradients[place].detach() for place in places])
        # A fused step of half precision computes in float32 and rounds once, at its end.
        dtype = torch.float32 if group.get("fused") and chosen[0].dtype in _HALF else chosen[0].dtype
        fed = _Fed(*(_as(dtype, tensors) for tensors in fed))
        found = _adam(fed, states, group) if adam else _sgd(fed, states, group)
        for place, weight in zip(places, found, strict=True):
            weights[place] = weight.to(parameters[place].dtype)
    return [weight for weight in weights if weight is not None]


class _Fed(NamedTuple):
    """Tensors of one device, dtype and parameter group."""

    weights: list[Tensor]
    gradients: list[Tensor]


def _slices(parameters: Sequence[Tensor], groups: dict[int, Group]) -> Iterator[tuple[list[int], Group]]:
    """Places of parameters that are alike, MOST_BYTES or one parameter at a time, each with their group."""
    alike: dict[object, list[int]] = {}
    for place, parameter in enumerate(parameters):
        alike.setdefault((id(groups[id(parameter)]), parameter.device, parameter.dtype), []).append(place)
    for places in alike.values():
        sizes = itertools.accumulate(parameters[place].nbytes for place in places)
        piece = [(size - 1) // MOST_BYTES for size in sizes]
        for _, run in itertools.groupby(range(len(places)), piece.__getitem__):
            yield [places[at] for at in run], groups[id(parameters[places[0]])]


def _as(dtype: torch.dtype, tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.to(dtype) for tensor in tensors]


def _scalar(number: Any) -> Scalar:
    """A float where that needs no waiting."""
    return number.detach().reshape(()) if isinstance(number, Tensor) and not _on_host(number) else float(number)


def _on_host(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _descent(fed: _Fed, group: Group, decay: float) -> list[Tensor]:
    """What the step goes down along, ``decay`` times the weights in it; the gradients themselves where they serve."""
    along = fed.gradients
    if group["maximize"]:
        along = list(torch._foreach_neg(along))
    if decay:
        along = list(torch._foreach_add(along, fed.weights, alpha=decay))
    return along


def _sgd(fed: _Fed, states: list[dict[str, Tensor]], group: Group) -> list[Tensor]:
    momentum, rate = group["momentum"], _scalar(group["lr"])
    along = _descent(fed, group, float(group["weight_decay"]))
    if momentum:
        buffers = _buffers(along, states, momentum, group["dampening"])
        if group["nesterov"]:
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, along)
        along = buffers
    if isinstance(rate, Tensor):
        steps = torch._foreach_mul(along, rate)
        return list(torch._foreach_sub(fed.weights, steps))
    return list(torch._foreach_add(fed.weights, along, alpha=-rate))


def _buffers(along: list[Tensor], states: list[dict[str, Tensor]], momentum: float, dampening: float) -> list[Tensor]:
    """The momentum buffers after the step; a first step takes what it is given, undampened."""
    buffers = []
    for tensor, state in zip(along, states, strict=True):
        buffer = state.get("momentum_buffer")
        if buffer is None:
            buffers.append(tensor.clone())
        else:
            buffers.append(buffer.to(tensor.dtype).mul(momentum).add_(tensor, alpha=1 - dampening))
    return buffers


def _adam(fed: _Fed, states: list[dict[str, Tensor]], group: Group) -> list[Tensor]:
    beta1, beta2 = (float(beta) for beta in group["betas"])
    rate, decay, decoupled = _scalar(group["lr"]), group["weight_decay"], group.get("decoupled_weight_decay", False)
    along = _descent(fed, group, 0 if decoupled else decay)
    mean = list(torch._foreach_lerp(_moments(fed, states, "exp_avg"), along, 1 - beta1))
    square = list(torch._foreach_mul(_moments(fed, states, "exp_avg_sq"), beta2))
    torch._foreach_addcmul_(square, along, along, 1 - beta2)
    del along
    if group["amsgrad"]:
        torch._foreach_maximum_(square, _moments(fed, states, "max_exp_avg_sq"))
    torch._foreach_sqrt_(square)
    shrunk = 1 - rate * decay if decoupled and decay else 1.0
    weights = list(torch._foreach_mul(fed.weights, shrunk))
    roots, sizes = _corrections(_counts(states, fed.weights[0].device), rate, beta1, beta2)
    torch._foreach_div_(square, roots)
    torch._foreach_add_(square, group["eps"])
    if isinstance(sizes[0], Tensor):
        torch._foreach_div_(square, sizes)
        torch._foreach_addcdiv_(weights, mean, square)
    else:
        torch._foreach_addcdiv_(weights, mean, square, sizes)
    return weights


def _corrections(counts: list[float] | Tensor, rate: Scalar, beta1: float, beta2: float) -> tuple[Any, Any]:
    """By what the root of the second moment is divided, and what the first is multiplied with, of each parameter."""
    if isinstance(counts, Tensor):
        return (1 - beta2**counts).sqrt().unbind(), (rate / (beta1**counts - 1)).unbind()
    return [(1 - beta2**count) ** 0.5 for count in counts], [rate / (beta1**count - 1) for count in counts]


def _moments(fed: _Fed, states: list[dict[str, Tensor]], name: str) -> list[Tensor]:
    """Of parameters that never stepped: zeros."""
    found = [state.get(name) for state in states]
    return [
        torch.zeros_like(weight) if moment is None else moment.to(weight.dtype)
        for moment, weight in zip(found, fed.weights, strict=True)
    ]


def _counts(states: list[dict[str, Tensor]], device: torch.device) -> list[float] | Tensor:
    """Which step of each parameter this one is, from 1 on: on the host, or a vector where a device counts."""
    counts = [state.get("step", 0.0) for state in states]
    if all(not isinstance(count, Tensor) or _on_host(count) for count in counts):
        return [float(count) + 1 for count in counts]
    wide = torch.float32 if device.type == "mps" else torch.float64  # (which has no wider one)
    there = [
        count.reshape(()).to(wide) if isinstance(count, Tensor) else torch.full((), count, dtype=wide, device=device)
        for count in counts
    ]
    return torch.stack(there) + 1
