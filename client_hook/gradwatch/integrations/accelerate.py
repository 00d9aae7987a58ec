"""Accelerate: ``monitor = watch_accelerator(accelerator, model, optimizer, clip=1.0)``.

After it ``accelerator.clip_grad_norm_`` clips and records by gradwatch, with the loss that ``accelerator.backward`` was
given. Accelerate wraps optimizers; gradwatch is given the wrapped ones, by which the GradScaler knows them, too.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.strategy import Strategy
from gradwatch.console import say
from gradwatch.integrations.losses import Losses
from gradwatch.integrations.one_threshold import check_options
from gradwatch.monitor import Monitor
from gradwatch.watching import watch

try:
    from accelerate.optimizer import AcceleratedOptimizer
except ModuleNotFoundError as missing:
    if missing.name != "accelerate":
        raise
    raise ImportError(
        "gradwatch.integrations.accelerate needs Accelerate: pip install accelerate", name="accelerate"
    ) from None

_REPLACED: Final = ("backward", "clip_grad_norm_", "clip_grad_value_")


def watch_accelerator(
    accelerator: Any,
    model: nn.Module,
    optimizer: Optimizer | Iterable[Optimizer] | None = None,
    *,
    clip: float | Strategy | Literal["call"] | None = "call",
    **options: Any,
) -> Monitor:
    """``gradwatch.watch`` for a training loop under ``accelerator``.

    ``model``, ``optimizer``: as ``accelerator.prepare`` gave them. ``clip``: as for ``gradwatch.watch``; by default
    "call": the ``max_norm`` that ``accelerator.clip_grad_norm_`` is called with. None: gradwatch only measures, and the
    call clips as it says. ``options``: the other arguments of ``gradwatch.watch``.

    From now on ``accelerator.clip_grad_norm_(model.parameters(), max_norm)`` is a step, with the sum of the losses
    given to ``accelerator.backward`` since the last one (each divided, as Accelerate does, by
    ``gradient_accumulation_steps``). While gradients still accumulate it does nothing but measure. Parameters that no
    watched model or optimizer has are clipped by Accelerate, unrecorded.

    In place of that call, ``if accelerator.sync_gradients: monitor.clip(loss, scaler=accelerator.scaler)`` does it too.
    To keep its state with ``accelerator.save_state``: ``accelerator.register_for_checkpointing(monitor)``.

    Several models, each with its optimizer, are watched by a call each. Raises TypeError under DeepSpeed, FSDP 1,
    Megatron-LM and XLA, where whole gradients are out of sight.
    """
    check_options(options)
    refuse_hidden_gradients(accelerator)
    given = [] if optimizer is None else [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    optimizers = [inner_optimizer(one) for one in given]
    if isinstance(clip, str) and clip != "call":
        raise TypeError(f'clip must be a number, a strategy, None or "call", not {clip!r}')
    follows = clip == "call"
    monitor = watch(model, optimizers, clip=GlobalNorm(math.inf) if isinstance(clip, str) else clip, **options)
    Interception.of(accelerator).add(Watched(monitor, model, follows=follows, measures_only=clip is None))
    return monitor


def inner_optimizer(optimizer: Any) -> Any:
    """The torch optimizer within Accelerate's."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer


def refuse_hidden_gradients(accelerator: Any) -> None:
    """Raises TypeError where gradients lie in an engine's buffers or in flat shards."""
    kind = str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type))
    if kind in ("DEEPSPEED", "MEGATRON_LM", "XLA") or (kind == "FSDP" and not accelerator.is_fsdp2):
        raise TypeError(
            f"gradwatch cannot see whole gradients under {kind}: use DDP or, to shard, FSDP 2 (fsdp_version=2)"
        )


class Watched:
    """A model that is clipped by ``monitor`` when ``accelerator.clip_grad_norm_`` is called with its parameters."""

    def __init__(self, monitor: Monitor, model: nn.Module, *, follows: bool, measures_only: bool) -> None:
        self.monitor = monitor
        self.follows = follows
        """Takes its threshold from the calls."""
        self.followed: float | None = None
        """What the last call said: only another one is news, and does away with what somebody has set since."""
        self.measures_only = measures_only
        self._model = weakref.ref(model)
        self._trained: set[int] = set()

    @property
    def alive(self) -> bool:
        return self._model() is not None

    def is_replaced_by(self, other: Watched) -> bool:
        shared = any(own is one for own in self.monitor.optimizers for one in other.monitor.optimizers)
        return shared or self._model() is other._model()

    def part(self, parameters: list[Tensor]) -> tuple[Optimizer | None] | None:
        """Whose gradients these are: (None,) the whole model's, (optimizer,) of one optimizer; None: of neither."""
        given = _trained(parameters)
        if given != self._trained:
            model = self._model()
            self._trained = set() if model is None else _trained(model.parameters())
        if given and given == self._trained:
            return (None,)
        for optimizer in self.monitor.optimizers:
            if given == _trained(parameter for group in optimizer.param_groups for parameter in group["params"]):
                return (optimizer,)
        return None


def _trained(parameters: Iterable[Tensor]) -> set[int]:
    return {id(parameter) for parameter in parameters if parameter.requires_grad}


class Interception:
    """gradwatch in the place of an accelerator's clipping."""

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator
        self._watched: list[Watched] = []
        self._losses = Losses()
        self._said: set[str] = set()
        self._before = {name: vars(accelerator).get(name) for name in _REPLACED}
        self._originals = {name: getattr(accelerator, name) for name in _REPLACED}
        for name in _REPLACED:
            setattr(accelerator, name, getattr(self, name))

    @staticmethod
    def of(accelerator: Any) -> Interception:
        """The one there is, or a new one."""
        owner = getattr(accelerator.clip_grad_norm_, "__self__", None)
        return owner if isinstance(owner, Interception) else Interception(accelerator)

    def add(self, watched: Watched) -> None:
        self._watched = [one for one in self._watched if one.alive and not one.is_replaced_by(watched)]
        self._watched.append(watched)
        self._losses.take()

    def remove(self, monitor: Monitor) -> None:
        """Give the accelerator its own functions back, once nothing is watched any more."""
        self._watched = [one for one in self._watched if one.monitor is not monitor]
        if self._watched:
            return
        for name, before in self._before.items():
            if before is None:
                vars(self._accelerator).pop(name, None)
            else:
                setattr(self._accelerator, name, before)

    # In the place of the accelerator's functions of these names.

    def backward(self, loss: Any, **kwargs: Any) -> None:
        self._losses.add(loss, divisor=self._accelerator.gradient_accumulation_steps)
        self._originals["backward"](loss, **kwargs)

    def clip_grad_norm_(self, parameters: Any, max_norm: float, norm_type: float = 2) -> Any:
        listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        found = self._find(listed)
        if found is None:
            self._say("accelerator.clip_grad_norm_ got parameters of no watched model or optimizer: not recorded")
            return self._originals["clip_grad_norm_"](listed, max_norm, norm_type)
        watched, optimizer = found
        if not self._accelerator.sync_gradients:
            self._say("accelerator.clip_grad_norm_ waits until the gradients of all micro-batches are there")
            return torch.nn.utils.get_total_norm([one.grad for one in listed if one.grad is not None], norm_type)
        if not self._agrees(watched, max_norm, norm_type):
            return self._originals["clip_grad_norm_"](listed, max_norm, norm_type)
        total = self.step(watched, optimizer)
        if watched.measures_only and max_norm != math.inf:
            # Not the accelerator's own: it would unscale once more.
            torch.nn.utils.clip_grad_norm_(listed, max_norm, norm_type)
        return total

    def clip_grad_value_(self, parameters: Any, clip_value: float) -> None:
        listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        found = self._find(listed)
        if found is None or found[0].follows:
            self._say(
                "accelerator.clip_grad_value_ is recorded only with clip=gradwatch.Value(...) in watch_accelerator"
            )
            self._originals["clip_grad_value_"](listed, clip_value)
        elif self._accelerator.sync_gradients:
            self.step(*found)
            if found[0].measures_only:
                torch.nn.utils.clip_grad_value_(listed, clip_value)

    def step(self, watched: Watched, optimizer: Optimizer | None) -> Tensor:
        """Clip and record."""
        scaler = getattr(self._accelerator, "scaler", None)
        return watched.monitor.clip(self._losses.take(), optimizer=optimizer, scaler=scaler)

    def _find(self, parameters: list[Tensor]) -> tuple[Watched, Optimizer | None] | None:
        for watched in self._watched:
            part = watched.part(parameters)
            if part is not None:
                return watched, part[0]
        return None

    def _agrees(self, watched: Watched, max_norm: float, norm_type: float) -> bool:
        """Whether gradwatch clips this call; takes its threshold over where that was asked for."""
        if not watched.follows:
            clipping = watched.monitor.strategy.describe()
            if not watched.measures_only and max_norm not in (clipping.get("max_norm"), math.inf):
                self._say(f"max_norm={max_norm} is not used: gradwatch clips by {clipping['strategy']}, as clip= says")
            return True
        if not max_norm > 0 or float(norm_type) != 2.0:
            self._say(
                "accelerator.clip_grad_norm_ is recorded with max_norm > 0 and norm_type 2; for another norm give "
                "watch_accelerator(..., clip=gradwatch.GlobalNorm(max_norm, norm_type))"
            )
            return False
        if watched.followed != max_norm:
            watched.followed = watched.monitor.threshold = max_norm
        return True

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(text)
