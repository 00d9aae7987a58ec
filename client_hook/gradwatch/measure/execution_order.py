"""The order in which modules run, observed in the first forward.

Registration order is not execution order, and only the latter tells which layer a NaN reached first.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

_observing: weakref.WeakSet[ExecutionOrder] = weakref.WeakSet()


class ExecutionOrder:
    """Notes when each module of ``model`` runs first, by hooks that are taken away at the first clip.

    The hooks are a plain function of this module, so that a model copied or pickled meanwhile stays whole. Inside a
    compiled forward nothing is noted, and a model compiled already gets no hooks; where nothing was observed, the order
    is that of registration.
    """

    def __init__(self, model: nn.Module) -> None:
        # Modules are known by identity only, so that the model is not kept alive.
        self._parents = {id(child): id(module) for module in model.modules() for child in module.children()}
        self._known = {id(module) for module in model.modules()}
        self._seen: dict[int, int] = {}
        self._handles: list[RemovableHandle] = []
        if not _is_compiled(model):
            self._handles = [module.register_forward_pre_hook(note) for module in model.modules()]
            _observing.add(self)

    def saw(self, module: int) -> None:
        """Module with this ``id`` runs now."""
        if module in self._known:
            self._seen.setdefault(module, len(self._seen))

    def close(self) -> None:
        """Take the hooks away. Safe to call again.

        Where they saw nothing, the forward was compiled with them in it, to nothing: there they stay, because taking
        them away would make it compile again.
        """
        for handle in self._handles if self._seen else []:
            handle.remove()
        self._handles = []
        _observing.discard(self)

    def ranks(self, owners: Sequence[int | None]) -> list[int]:
        """Execution rank of each layer, given the id of the module that owns it (None: unknown).

        Layers of one module keep their registration order. A module that was never called itself, because its parent
        uses its weights directly (``nn.MultiheadAttention`` does), runs when that parent runs.
        """
        moments = [self._moment(owner) for owner in owners]
        ranks = [0] * len(owners)
        for rank, index in enumerate(sorted(range(len(owners)), key=lambda index: (moments[index], index))):
            ranks[index] = rank
        return ranks

    def _moment(self, module: int | None) -> int:
        while module is not None:
            if module in self._seen:
                return self._seen[module]
            module = self._parents.get(module)
        return len(self._seen)


def note(module: nn.Module, inputs: Any) -> None:
    """The hook: tells whoever observes that ``module`` runs."""
    if not torch.compiler.is_compiling():
        for order in list(_observing):
            order.saw(id(module))


def _is_compiled(model: nn.Module) -> bool:
    return any(
        type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
