"""The layers of a watched model: which parameters are measured, and under which names they are recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from gradwatch import frames
from gradwatch.parameter_groups import signature


@dataclass(frozen=True, slots=True)
class Layer:
    """One recorded row of the layer table: a parameter tensor or, in a model too large, a module."""

    name: str
    shape: tuple[int, ...]
    numel: int
    owner: int | None
    """``id`` of the module that holds it, to look up its place in the execution order."""

    def as_json(self, order: int) -> list[Any]:
        return [self.name, list(self.shape), self.numel, order]


@dataclass(frozen=True, slots=True)
class Present:
    """Where the gradients of a step stand among all layers."""

    places: list[int]
    index: Tensor
    """``places`` on the gradients' device, int64."""
    absent: npt.NDArray[np.uint8]
    """One byte a layer, 1: it had no gradient."""


class LayerTable:
    """The measured parameters of one monitor, in the order of the recorded layers. It grows, and never shrinks.

    Frozen parameters belong to it: they may thaw, and torch's clipping would then see them.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        self.layers: list[Layer] = []
        self.parameters: list[Tensor] = []
        self.place: dict[int, int] = {}
        self._optimizers = optimizers
        self._optimized = signature(optimizers)
        self._kinds: set[tuple[torch.device, torch.dtype]] | None = None
        self._sharded = False
        self._present: Present | None = None
        self._names: list[str] = []
        self._groups: list[int] = []
        for layer, parameter in named_parameters(model, optimizers):
            self._add(layer, parameter)

    def _add(self, layer: Layer, parameter: Tensor) -> None:
        self.place[id(parameter)] = len(self.parameters)
        self.layers.append(layer)
        self.parameters.append(parameter)
        self._kinds = None

    @property
    def names(self) -> list[str]:
        """Layer names, in order."""
        if len(self._names) != len(self.layers):
            self._names = [layer.name for layer in self.layers]
        return self._names

    @property
    def groups(self) -> list[int]:
        """For each layer the number of its parameter group, counted through all optimizers; -1: in none."""
        if len(self._groups) != len(self.layers):
            groups = [group["params"] for optimizer in self._optimizers for group in optimizer.param_groups]
            of = {id(parameter): number for number, members in enumerate(groups) for parameter in members}
            self._groups = [of.get(id(parameter), -1) for parameter in self.parameters]
        return self._groups

    def where_present(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> Present | None:
        """Where ``gradients``, those of ``parameters`` that have one, stand; None: one for every layer, in order."""
        if parameters is self.parameters and len(gradients) == len(parameters):
            return None
        places = [self.place[id(parameter)] for parameter in parameters if parameter.grad is not None]
        known = self._present
        if known is None or known.places != places or len(known.absent) != len(self.parameters):
            absent = np.ones(len(self.parameters), np.uint8)
            absent[places] = 0
            device = gradients[0].device if gradients else torch.device("cpu")
            known = self._present = Present(places, torch.tensor(places, dtype=torch.long, device=device), absent)
        return known

    @property
    def uniform(self) -> bool:
        """Whether all parameters are whole and share one device and dtype, as seen at the first clip of this table."""
        if self._kinds is None:
            self._kinds = {(parameter.device, parameter.dtype) for parameter in self.parameters}
            self._sharded = any(hasattr(parameter, "full_tensor") for parameter in self.parameters)
        return len(self._kinds) == 1 and not self._sharded

    @property
    def device(self) -> torch.device:
        """Where the first parameter lies."""
        return self.parameters[0].device if self.parameters else torch.device("cpu")

    @property
    def has_float64(self) -> bool:
        return any(parameter.dtype in (torch.float64, torch.complex128) for parameter in self.parameters)

    def layers_now(self) -> list[Layer]:
        """The layers with the sizes their parameters have by now."""
        together = zip(self.layers, self.parameters, strict=True)
        return [Layer(layer.name, *_size(parameter), layer.owner) for layer, parameter in together]

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copy has parameters of its own, so what was known by identity is looked up anew.
        self.__dict__.update(state)
        self._present = None
        self.place = {id(parameter): place for place, parameter in enumerate(self.parameters)}

    def has_grown(self) -> bool:
        """Take in parameters that were added to an optimizer since the last call; whether there were any."""
        optimized = signature(self._optimizers)
        if optimized == self._optimized:
            return False
        self._optimized = optimized
        self._groups = []
        before = len(self.parameters)
        for layer, parameter in named_parameters(nn.Module(), self._optimizers):
            if id(parameter) not in self.place:
                self._add(layer, parameter)
        return len(self.parameters) > before

    def adopt(self, parameters: Iterable[Tensor]) -> bool:
        """Take in parameters that no model or optimizer named; whether there were any."""
        before = len(self.parameters)
        for parameter in parameters:
            if id(parameter) not in self.place:
                name = f"parameter{len(self.parameters)}"
                self._add(Layer(name, *_size(parameter), None), parameter)
        return len(self.parameters) > before


def _size(parameter: Tensor) -> tuple[tuple[int, ...], int]:
    """Shape and number of elements; of a lazy module's parameter, which has none before the first forward, nothing."""
    if is_lazy(parameter):
        return (), 0
    return tuple(parameter.shape), parameter.numel()


def named_parameters(model: nn.Module, optimizers: Iterable[Optimizer]) -> Iterator[tuple[Layer, Parameter]]:
    """Every parameter once: the model's by name, then those that only an optimizer knows.

    Tied parameters appear under their first name. The prefixes that wrappers add (``_orig_mod.`` by torch.compile,
    ``module.`` by DistributedDataParallel) are left out of the names.
    """
    seen: set[int] = set()
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(prefix=path, recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield Layer(_plain(own, model), *_size(parameter), id(module)), parameter
    for number, optimizer in enumerate(optimizers):
        for group, position, parameter in _members(optimizer):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                name = f"optimizer{number}.group{group}.{position}"
                yield Layer(name, *_size(parameter), None), parameter


def _members(optimizer: Optimizer) -> Iterator[tuple[int, int, Parameter]]:
    for group, settings in enumerate(optimizer.param_groups):
        for position, parameter in enumerate(settings["params"]):
            yield group, position, parameter


def _plain(name: str, model: nn.Module) -> str:
    name = name.replace("_orig_mod.", "")
    if type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
        name = name.removeprefix("module.")
    return _storable(name)


def _storable(name: str) -> str:
    """A name the server takes: long ones keep their end, which tells layers apart."""
    whole = frames.storable_text(name, len(name))
    return whole if len(whole) <= frames.MAX_NAME else "…" + whole[-(frames.MAX_NAME - 1) :]


def fold_into_modules(layers: list[Layer], limit: int = frames.MAX_LAYERS) -> tuple[list[Layer], list[int]]:
    """Modules in place of ``layers`` when there are more than ``limit``, and for each layer the module it belongs to.

    Names are cut at the deepest level of the module tree that leaves at most ``limit`` modules.
    """
    paths = [layer.name.split(".")[:-1] for layer in layers]
    depth = max((len(path) for path in paths), default=0)
    while depth > 0 and len({tuple(path[:depth]) for path in paths}) > limit:
        depth -= 1
    modules: dict[str, list[Layer]] = {}
    owners = []
    for path, layer in zip(paths, layers, strict=True):
        name = ".".join(path[:depth]) or "(model)"
        modules.setdefault(name, []).append(layer)
        owners.append(name)
    places = {name: place for place, name in enumerate(modules)}
    folded = [
        Layer(name, (), sum(layer.numel for layer in members), members[0].owner) for name, members in modules.items()
    ]
    return folded, [places[name] for name in owners]
