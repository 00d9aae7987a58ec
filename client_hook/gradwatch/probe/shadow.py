"""The shadow model: a copy of the model on which the loss is looked at, so that the training's own is never touched."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn

from gradwatch.probe.random_state import devices_of, random_numbers_of

Closure = Callable[[Any], Any]

_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_HOOK_OPTIONS: Final = (
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)
# Weight and spectral norm and pruning compute the weights in a hook: without it the model is another.
_KEPT_HOOKS: Final = "torch.nn.utils"
_WRAPPERS: Final = ("DistributedDataParallel", "DataParallel")


class UnfitProbe(Exception):
    """The model or the probe cannot be used; the message says why and what to do."""


def bare(model: nn.Module) -> nn.Module:
    """``model`` without the wrappers whose forward would synchronise ranks or compile.

    Raises UnfitProbe for a sharded model, or one that wraps only parts of itself: its ranks would have to probe
    together.
    """
    while True:
        if type(model).__name__ in _WRAPPERS:
            model = model.module  # type: ignore[assignment]
        elif hasattr(model, "_orig_mod") and isinstance(model._orig_mod, nn.Module):
            model = model._orig_mod
        else:
            break
    if any(type(module).__name__ in _WRAPPERS for module in model.modules()):
        raise UnfitProbe("a part of the model is in DistributedDataParallel or DataParallel: wrap the whole model")
    if any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
        raise UnfitProbe("a model sharded by FSDP2 (fully_shard) or as DTensor cannot be probed")
    return model


def model_bytes(model: nn.Module) -> tuple[int, int]:
    """Bytes of one copy of the model, and of the parameters that are trained alone."""
    moving = sum(tensor.numel() * tensor.element_size() for tensor in trained(model))
    whole = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in whole), moving


def trained(model: nn.Module) -> list[Tensor]:
    """The parameters that are trained, each once: only along these the weights move."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class _OwnBatchNorm(nn.modules.batchnorm._BatchNorm):
    """In the place of SyncBatchNorm, which in training mode would wait for ranks that do not probe."""

    def _check_input_dim(self, input: Tensor) -> None:
        return


class Shadow:
    """A copy of ``model`` in evaluation mode, without gradients and without the hooks that others put on the model.

    ``weights``: the copies of ``trained(model)``, in its order, to be written to before ``loss``. Raises UnfitProbe
    for a model that cannot be deep-copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self._original = weakref.ref(model)  # probing must not keep a forgotten model alive
        self.devices = devices_of(model.parameters())
        try:
            with random_numbers_of(0, self.devices):
                self.model = copy.deepcopy(model, _computed_copies(model))
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise UnfitProbe(f"the model cannot be deep-copied, which probing needs ({reason[:300]})") from error
        if not _places(self.model).isdisjoint(_places(model)):
            raise UnfitProbe("a deep copy of the model shares modules or weights with it (__deepcopy__ of its own?)")
        for module in self.model.modules():
            if isinstance(module, nn.SyncBatchNorm):
                module.__class__ = _OwnBatchNorm  # type: ignore[assignment]
        self.hooks_left_out = _drop_hooks(self.model)
        self.model.requires_grad_(False)
        self.model.train(False)
        own = [parameter.requires_grad for parameter in model.parameters()]
        self.weights: list[Tensor] = [
            copied for copied, moves in zip(self.model.parameters(), own, strict=True) if moves
        ]
        self._moves = own
        self._frozen: dict[int, int | None] = {}  # versions of frozen parameters, as they were copied last
        self._kinds = _kinds(model)
        paths = [name.rpartition(".") for name, _ in self.model.named_buffers()]
        self._buffers = [(self.model.get_submodule(path), name) for path, _, name in paths]

    @property
    def original(self) -> nn.Module:
        """The model that was copied. Raises UnfitProbe when it is gone."""
        model = self._original()
        if model is None:
            raise UnfitProbe("the model was let go")
        return model

    @property
    def is_current(self) -> bool:
        """Whether the model is still there, with parameters and buffers as they were when it was copied."""
        model = self._original()
        if model is None:
            return False
        return self._kinds == _kinds(model)

    def follow(self) -> list[Tensor]:
        """The model's buffers (running statistics) as they are now, for ``loss``; frozen parameters are brought up."""
        with torch.no_grad():
            pairs = zip(self.model.parameters(), self.original.parameters(), self._moves, strict=True)
            for mine, theirs in [(mine, theirs) for mine, theirs, moves in pairs if not moves]:
                version = None if theirs.is_inference() else theirs._version
                if version is None or self._frozen.get(id(theirs)) != version:  # a large base is copied but once
                    mine.copy_(theirs)
                    self._frozen[id(theirs)] = version
        return copies(list(self.original.buffers()))

    def loss(self, closure: Closure, buffers: Sequence[Tensor], seed: int) -> Tensor:
        """The loss at the weights that were written and at ``buffers``, 0-dimensional, where the closure computed it.

        Runs eagerly, without gradients, with the global random numbers of ``seed``, so that two places differ by their
        weights alone; afterwards those are as before. Raises UnfitProbe when ``closure`` raises or returns no single
        number, and what torch raises for want of memory.
        """
        self.model.train(False)
        with torch.no_grad():
            for (module, name), kept in zip(self._buffers, buffers, strict=True):
                buffer = module._buffers.get(name)
                # One that a forward made anew in another size (a cache for longer inputs) is left to the shadow.
                if buffer is not None and buffer.shape == kept.shape:
                    buffer.copy_(kept)
        grad_mode = torch.is_grad_enabled()
        try:
            with torch.no_grad(), random_numbers_of(seed, self.devices), _eagerly():
                found = closure(self.model)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise UnfitProbe(f"the probe raised {type(error).__name__}: {str(error)[:300]}") from error
        finally:
            torch.set_grad_enabled(grad_mode)
        return _number(found)

    @property
    def mode(self) -> str:
        """In which mode the closure left the model: "train" when it switched it over."""
        return "train" if self.model.training else "eval"


def place(weights: Sequence[Tensor], anchor: Sequence[Tensor], *along: tuple[float, Sequence[Tensor]]) -> None:
    """Write anchor + sum of coefficient x direction into ``weights``."""
    torch._foreach_copy_(list(weights), list(anchor))
    for coefficient, direction in along:
        if coefficient:
            torch._foreach_add_(list(weights), list(direction), alpha=coefficient)


def place_between(weights: Sequence[Tensor], old: Sequence[Tensor], new: Sequence[Tensor], alpha: float) -> None:
    """Write old + alpha (new - old) into ``weights``; exactly ``old`` at 0 and ``new`` at 1."""
    for weight, start, end in zip(weights, old, new, strict=True):
        torch.lerp(start, end, alpha, out=weight)


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies in memory of their own, without a graph."""
    return [tensor.detach().clone() for tensor in tensors]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out; on the CPU torch has no class of its own for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _computed_copies(model: nn.Module) -> dict[int, Any]:
    """Copies of tensors that modules computed and kept, by identity, for ``deepcopy``, which would refuse them.

    Weight norm, spectral norm and pruning keep their weight so, and compute it anew in every forward.
    """
    kept = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf}


def _kinds(model: nn.Module) -> list[tuple[Any, ...]]:
    """Which parameters and what sort of buffers a model has: as long as these stay, its copy is of use."""
    # (A shape takes five microseconds, and there may be thousands of parameters.)
    parameters = [(id(one), one.requires_grad, one.numel(), one.dtype, one.device) for one in model.parameters()]
    return [*parameters, *((buffer.shape, buffer.dtype, buffer.device) for buffer in model.buffers())]


def _places(model: nn.Module) -> set[int]:
    """Of modules, parameters and buffers, and of the memory that these lie in."""
    tensors = [*model.parameters(), *model.buffers()]
    plain = [tensor for tensor in tensors if tensor.layout is torch.strided and type(tensor) in (Tensor, nn.Parameter)]
    memory = {tensor.data_ptr() for tensor in plain} - {0}  # 0: empty
    return memory | {id(part) for part in (*model.modules(), *tensors)}


def _drop_hooks(model: nn.Module) -> int:
    """Take hooks off that are not part of what the model computes; how many there were."""
    dropped = 0
    for module in model.modules():
        for kind in _HOOKS:
            hooks = module.__dict__.get(kind, {})
            for key in [key for key, hook in hooks.items() if not _is_torchs_own(hook)]:
                del hooks[key]
                dropped += 1
                for option in _HOOK_OPTIONS:
                    module.__dict__.get(option, {}).pop(key, None)
    return dropped


def _is_torchs_own(hook: Any) -> bool:
    home = getattr(hook, "__module__", None) or type(hook).__module__
    return str(home).startswith(_KEPT_HOOKS) or type(hook).__module__.startswith(_KEPT_HOOKS)


def _eagerly() -> Any:
    # A closure or a submodule that is compiled would else be compiled anew for the shadow, for seconds.
    set_stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if set_stance is None else set_stance("force_eager")


def _number(found: Any) -> Tensor:
    loss = found.detach() if isinstance(found, Tensor) else found
    if isinstance(loss, bool) or not isinstance(loss, Tensor | float | int):
        raise UnfitProbe(f"the probe must return its loss as one number or tensor, not {type(found).__name__}")
    tensor = loss if isinstance(loss, Tensor) else torch.tensor(float(loss), dtype=torch.float64)
    if tensor.numel() != 1 or tensor.is_complex():
        raise UnfitProbe(
            f"the probe must return one number, not shape {tuple(tensor.shape)}: average it, as by .mean()"
        )
    return tensor.reshape(())
