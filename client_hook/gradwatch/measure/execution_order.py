"""The order in which modules run, observed in the first forward.

Registration order is not execution order, and only the latter tells which layer a NaN reached first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


class ExecutionOrder:
    """Notes when each module of ``model`` that owns parameters runs first.

    A global hook is used and taken away at the first clip: hooks put on the modules would be copied with the model and
    would live in its pickles. A compiled model is left alone, because a hook that comes and goes makes it compile
    again; its layers keep their registration order.
    """

    def __init__(self, model: nn.Module) -> None:
        # Modules are known by identity only while the hook is on, so that the model is not kept alive.
        self._waiting = {id(module) for module in model.modules() if list(module.parameters(recurse=False))}
        self._seen: dict[int, int] = {}
        self._handle = None if _is_compiled(model) else register_module_forward_pre_hook(self._note)

    def _note(self, module: nn.Module, inputs: Any) -> None:
        if id(module) in self._waiting and not torch.compiler.is_compiling():
            self._waiting.discard(id(module))
            self._seen[id(module)] = len(self._seen)

    def close(self) -> None:
        """Take the hook away. Safe to call again."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def ranks(self, owners: list[int | None]) -> list[int]:
        """Execution rank of each layer, given the id of the module that owns it (None: unknown).

        Layers of modules that never ran come last; layers of one module keep their registration order. When nothing
        was observed, the order is the registration order.
        """
        last = len(self._seen)
        seen = [last if owner is None else self._seen.get(owner, last) for owner in owners]
        ranks = [0] * len(owners)
        for rank, index in enumerate(sorted(range(len(owners)), key=lambda index: (seen[index], index))):
            ranks[index] = rank
        return ranks


def _is_compiled(model: nn.Module) -> bool:
    return any(
        type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
