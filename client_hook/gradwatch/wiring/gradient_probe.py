"""What happens to one parameter's gradient between two optimizer steps, written down as a short string of marks."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Final, Literal

import torch
from torch import Tensor

BACKWARD: Final = "b"  # a backward gave a gradient, not known to be added to a clipped one
ADDED: Final = "+"  # a backward added to exactly the gradient that a clip had left
CLIPPED: Final = "c"  # a clip saw what a backward had given
AGAIN: Final = "="  # a clip saw exactly what the same clip had left
USELESS: Final = "o"  # a clip saw no gradient, or one that a step had used: on no parameter anything new
GONE: Final = "z"  # a clip found a backward's gradient taken away or zeroed
OTHER: Final = "."  # a clip of which nothing is said

_KEPT_BYTES: Final = 1 << 20  # gradients above are not held beyond a clip, so that no memory is lost to this
_MOST_MARKS: Final = 64

State = Literal["new", "stale", "fresh", "gone", "same", "changed"]


class GradientProbe:
    """Watches ``parameter`` by a hook on its accumulation, until it is closed or let go.

    Nothing here waits for a device. The parameter's copies have no hook, and a compiled backward sees none.
    Raises RuntimeError where torch takes no such hook: tensors that need no gradient, or have been computed.
    """

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = parameter
        self.marks = ""
        self._is_new = True
        self._backward_version = -1
        self._left: Tensor | None = None  # the gradient as a clip left it
        self._left_version = -1
        register = parameter.register_post_accumulate_grad_hook
        self._handle = register(_hook(weakref.ref(self)))  # type: ignore[no-untyped-call]

    def state(self) -> State:
        """What a clip that begins now finds here, by the marks so far."""
        last, gradient = self.marks[-1:], self.parameter.grad
        if self._is_new:
            return "new"
        if last and last in BACKWARD + ADDED:
            return "gone" if self.is_gone() else "fresh"
        if last and last in CLIPPED + AGAIN:
            return "same" if self._is_left(gradient, 0) else "changed"
        return "stale"

    def note(self, mark: str) -> None:
        """Write ``mark`` down, once where it repeats itself without telling anything new."""
        if not (self.marks.endswith(mark) and mark in BACKWARD + USELESS + OTHER):
            self.marks = (self.marks + mark)[-_MOST_MARKS:]

    def clip_ended(self) -> None:
        """Remember the gradient as the clip leaves it."""
        gradient = self.parameter.grad
        self._left = None
        if gradient is not None and gradient.numel() * gradient.element_size() <= _KEPT_BYTES:
            self._left, self._left_version = gradient, _version(gradient)

    def begin_anew(self) -> None:
        """Its optimizer steps: what follows belongs to the next step."""
        self.marks, self._left, self._is_new = "", None, False

    def is_gone(self) -> bool:
        """Whether there is no gradient, or one that was zeroed since the last backward."""
        gradient = self.parameter.grad
        return gradient is None or self._was_zeroed(gradient)

    def is_untouched(self) -> bool:
        """Whether nobody has changed the gradient in place since the last backward gave it."""
        gradient = self.parameter.grad
        return gradient is not None and _version(gradient) == self._backward_version

    def close(self) -> None:
        self._handle.remove()
        self._left = None

    def _backward(self) -> None:
        gradient = self.parameter.grad
        added = self.marks[-1:] in (CLIPPED, AGAIN) and self._is_left(gradient, 1)
        self._is_new, self._left = False, None
        self._backward_version = -1 if gradient is None else _version(gradient)
        if self.marks[-1:] not in (BACKWARD, ADDED):
            self.note(ADDED if added else BACKWARD)

    def _is_left(self, gradient: Tensor | None, changes: int) -> bool:
        """Whether ``gradient`` is the one that a clip left, changed in place exactly ``changes`` times since."""
        return gradient is not None and gradient is self._left and _version(gradient) == self._left_version + changes

    def _was_zeroed(self, gradient: Tensor) -> bool:
        # The values are looked at only where somebody has changed them, and only where looking waits for no device.
        plain = type(gradient) is Tensor and gradient.device.type == "cpu" and gradient.layout is torch.strided
        if not plain or gradient._version == self._backward_version:
            return False
        return not bool(gradient.any())


def _version(gradient: Tensor) -> int:
    """How often it was changed in place; FSDP2 accumulates into a sharded gradient's own shard."""
    return int(getattr(gradient, "_local_tensor", gradient)._version)


def _hook(reference: weakref.ref[GradientProbe]) -> Callable[[Tensor], None]:
    def saw_backward(parameter: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        probe = reference()
        if probe is not None:
            try:
                probe._backward()
            except Exception:  # an odd kind of gradient: nothing is said of it
                probe.marks = OTHER

    return saw_backward


def in_backward() -> bool:
    """Whether a backward of this thread is under way, as in a gradient's hook."""
    return bool(getattr(torch._C, "_current_graph_task_id", lambda: -1)() != -1)


def backward_is_compiled() -> bool:
    """Whether compiled autograd is on: it would capture the backward anew for our hooks, and hide it from them."""
    config = sys.modules.get("torch._dynamo.config")
    running = sys.modules.get("torch._dynamo.compiled_autograd")
    return bool(getattr(config, "compiled_autograd", False) or getattr(running, "compiled_autograd_enabled", False))
