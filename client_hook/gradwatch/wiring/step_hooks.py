"""Looking at every optimizer step of the process: one pair of torch's global hooks, there only while somebody looks.

torch raises RuntimeError into a step when its hooks change while it goes through them. So hooks are put in and taken
away only where no step of this thread can be at that point; until then they stay as they are and do nothing.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any, Protocol

import torch
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer
from torch.utils.hooks import RemovableHandle


class StepObserver(Protocol):
    """Told of every step that is not compiled, whichever optimizer takes it. Must not raise."""

    def step_begins(self, optimizer: Optimizer, has_closure: bool) -> None: ...
    def step_ends(self, optimizer: Optimizer, has_closure: bool) -> None: ...


_observing: weakref.WeakSet[Any] = weakref.WeakSet()
_handles: list[RemovableHandle] = []
_telling: list[None] = []  # one entry for each hook of ours that runs now


def observe(observer: StepObserver) -> None:
    """Tell ``observer`` of steps, as long as it lives or until it leaves. Cheap to call again."""
    _observing.add(observer)
    if not _handles and _may_change():
        _handles.append(torch_optimizer.register_optimizer_step_pre_hook(_step_begins))
        _handles.append(torch_optimizer.register_optimizer_step_post_hook(_step_ends))


def leave(observer: StepObserver) -> None:
    """Tell ``observer`` no more; the last one to leave outside a step takes the hooks along."""
    _observing.discard(observer)
    if _handles and not _observing and _may_change():
        for handle in _handles:
            handle.remove()
        _handles.clear()


def _step_begins(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    # A compiled step sees this function as empty, and stays one graph.
    if torch.compiler.is_compiling():
        return
    if _observing:
        _tell("step_begins", optimizer, args, kwargs)


def _step_ends(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if torch.compiler.is_compiling():
        return
    if _observing:
        _tell("step_ends", optimizer, args, kwargs)


def _tell(what: str, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    has_closure = (len(args) > 1 and callable(args[1])) or callable(kwargs.get("closure"))
    _telling.append(None)
    try:
        for observer in list(_observing):
            getattr(observer, what)(optimizer, has_closure)
    finally:
        _telling.pop()


def _may_change() -> bool:
    """Whether no step of this thread can be going through the global hooks."""
    if _telling:
        return False
    hooks = (torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks)
    ours = 1 if _handles else 0
    # Where ours are the only ones, torch has gone through all of them before it calls anything else.
    return all(len(known) <= ours for known in hooks) or not _in_a_step()


def _in_a_step() -> bool:
    frame = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "wrapper" and code.co_filename == torch_optimizer.__file__:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
