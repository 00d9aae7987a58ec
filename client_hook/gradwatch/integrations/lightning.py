"""Lightning: ``Trainer(callbacks=[GradwatchCallback(clip=1.0)])``.

Lightning's order at an optimizer step (2.6, ``Precision._after_closure``): unscale, the callbacks' and the module's
``on_before_optimizer_step``, ``configure_gradient_clipping``, which by default ends in the precision plugin's
``clip_gradients``. That last function is what gradwatch takes the place of, so that every hook before it still sees
unclipped gradients. In manual optimization Lightning clips nothing itself, and gradwatch clips in
``on_before_optimizer_step``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from torch import Tensor, nn
from torch.optim import Optimizer

from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.strategy import Strategy
from gradwatch.clipping.value import Value
from gradwatch.console import say
from gradwatch.integrations.checkpoint import Kept
from gradwatch.integrations.losses import Losses
from gradwatch.integrations.metrics import loggable
from gradwatch.integrations.one_threshold import Clip, check_options, one_threshold
from gradwatch.monitor import Monitor
from gradwatch.uncaught import reason_of
from gradwatch.watching import watch

_PACKAGES: Final = ("lightning.pytorch", "pytorch_lightning")


def _callback_class() -> Any:
    """The class of the package that the script uses; the two that exist do not accept each other's."""
    for package in (*(name for name in _PACKAGES if name in sys.modules), *_PACKAGES):
        try:
            return import_module(package).Callback
        except ModuleNotFoundError as error:
            if error.name not in ("lightning", "pytorch_lightning"):
                raise
    raise ImportError("gradwatch.integrations.lightning needs Lightning: pip install lightning", name="lightning")


class GradwatchCallback(_callback_class()):  # type: ignore[misc]
    """Clip and record every optimizer step of a ``Trainer``.

    ``clip``: as for ``gradwatch.watch``; by default "trainer": what ``Trainer(gradient_clip_val=,
    gradient_clip_algorithm=)`` says, by gradwatch's hand. None: gradwatch only measures, the Trainer clips as told.
    ``options``: the other arguments of ``gradwatch.watch``; ``config`` is the module's hyperparameters and
    ``total_steps`` the Trainer's, unless given.

    The loss is the sum of what was propagated backward since the last step, which under ``accumulate_grad_batches`` is
    the mean over the micro-batches. What validation logs is recorded, and so are the end and its reason. Its state goes
    with Lightning's checkpoints. Under ``control=True`` the Trainer stops after the batch at which that was asked for.

    In manual optimization each ``optimizer.step()`` is a step, clipped right before it; ``self.clip_gradients`` is
    replaced by that.

    When training starts, raises ValueError when the Trainer and ``clip`` say different thresholds, and TypeError for a
    strategy that shards gradients out of sight (DeepSpeed, FSDP; ModelParallelStrategy is fine).
    """

    def __init__(self, clip: Clip = "trainer", **options: Any) -> None:
        super().__init__()
        check_options(options)
        self.monitor: Monitor | None = None
        """Of the training under way, or the last one."""
        self._clip = clip
        self._options = options
        self._saved: dict[str, Any] = {}
        self._kept: Kept | None = None
        self._losses = Losses()
        self._hold: _Hold | None = None
        self._before_validation: dict[str, Any] = {}

    # Lightning's hooks, in the order of a training.

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        _refuse_hidden_gradients(trainer)
        said = f"Trainer(gradient_clip_val={trainer.gradient_clip_val!r})"
        clip = one_threshold(self._clip, _trainers_clipping(trainer), said)
        hyperparameters = dict(getattr(pl_module, "hparams", {}))
        arguments = {
            "config": hyperparameters,
            "total_steps": _total_steps(trainer, pl_module),
            "start_step": trainer.global_step,
            **self._options,
        }
        self.monitor = watch(pl_module, trainer.optimizers, clip=clip, **arguments)
        self._kept = Kept(self.monitor)
        if self._saved:
            self._kept.load(self._saved)
            self._saved = {}
        self._losses.take()
        self._hold = _Hold(trainer, pl_module, self.monitor, self._losses, measures_only=clip is None)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._hold is not None:
            self._hold.went_backward = False

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        if self._hold is not None:
            self._hold.went_backward = True
            self._losses.add(loss, _scaler(trainer))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Optimizer) -> None:
        if self._hold is not None:
            self._hold.before_step(optimizer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._hold is not None:
            self._hold.check_step()
            if self.monitor is not None and self.monitor.should_stop:
                trainer.should_stop = True  # on every rank after the same batch

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._before_validation = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        before, self._before_validation = self._before_validation, {}
        if self.monitor is None or self._hold is None or trainer.sanity_checking:
            return
        # Lightning keeps every metric it ever saw in there; those of this validation are new objects.
        new = {name: value for name, value in trainer.callback_metrics.items() if value is not before.get(name)}
        self.monitor.log(loggable(new, "validation "))

    def state_dict(self) -> dict[str, Any]:
        return {} if self._kept is None else self._kept.save()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._end("finished", "")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._end("failed", reason_of(exception))

    def _end(self, state: str, reason: str) -> None:
        if self._hold is not None and self.monitor is not None:
            self._hold.release()
            self._hold = None
            self.monitor.finish(state, reason)


class _Hold:
    """gradwatch in the place of the Trainer's clipping, for one training."""

    def __init__(self, trainer: Any, module: Any, monitor: Monitor, losses: Losses, *, measures_only: bool) -> None:
        self.went_backward = False
        self._module = module
        self._monitor = monitor
        self._losses = losses
        self._measures_only = measures_only
        self._whole = _steps_everything(trainer.optimizers, module)
        self._steps_unseen = False
        self._said: set[str] = set()
        self._plugin = trainer.precision_plugin
        self._original = self._plugin.clip_gradients
        self._plugin.clip_gradients = self._clip_gradients

    def release(self) -> None:
        """Give the Trainer its own clipping back."""
        del self._plugin.clip_gradients

    def before_step(self, optimizer: Optimizer) -> None:
        if self._module.automatic_optimization:
            self._steps_unseen = True
        else:
            self._clip(optimizer)

    def check_step(self) -> None:
        """Say it when the module's own ``configure_gradient_clipping`` has gone past Lightning's function."""
        if self._steps_unseen:
            self._steps_unseen = False
            self._say(
                "steps are not recorded: configure_gradient_clipping of the module must call "
                "self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)"
            )

    def _clip_gradients(self, optimizer: Any, clip_val: float = 0.0, gradient_clip_algorithm: Any = "norm") -> None:
        """In the place of the precision plugin's function of this name."""
        if self._module.automatic_optimization:
            self._steps_unseen = False
            # After a training_step that returned None the GradScaler does not step, so nothing must be unscaled.
            if _scaler_of(self._plugin) is None or self.went_backward:
                self._clip(optimizer)
        elif self._measures_only:
            self._say("norms are recorded as self.clip_gradients left them: write GradwatchCallback(clip=...) instead")
        else:
            self._say("self.clip_gradients is left out: gradwatch clips right before optimizer.step()")
        if self._measures_only:
            self._original(optimizer, clip_val, gradient_clip_algorithm)

    def _clip(self, optimizer: Any) -> None:
        owner = None if self._whole else optimizer
        self._monitor.clip(self._losses.take(), optimizer=owner, scaler=_scaler_of(self._plugin))

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(text)


def _steps_everything(optimizers: Sequence[Optimizer], module: nn.Module) -> bool:
    """Whether one optimizer has all trained parameters of the module; then all are clipped together, which is cheaper.

    Lightning clips the parameters of the optimizer and no others.
    """
    if len(optimizers) != 1:
        return False
    optimized = {id(parameter) for group in optimizers[0].param_groups for parameter in group["params"]}
    return all(id(parameter) in optimized for parameter in module.parameters() if parameter.requires_grad)


def _scaler(trainer: Any) -> Any:
    return _scaler_of(trainer.precision_plugin)


def _scaler_of(plugin: Any) -> Any:
    return getattr(plugin, "scaler", None)


def _trainers_clipping(trainer: Any) -> Strategy | None:
    value = trainer.gradient_clip_val
    if not value or value < 0:  # Lightning, too, clips nothing then
        return None
    return Value(value) if trainer.gradient_clip_algorithm == "value" else GlobalNorm(value)


def _total_steps(trainer: Any, module: Any) -> int | None:
    """Optimizer steps of the whole training; None where it has no known end."""
    try:
        steps = trainer.estimated_stepping_batches if module.automatic_optimization else trainer.max_steps
    except Exception:  # an estimate is all it is for
        return None
    return int(steps) if 0 < steps < math.inf else None


def _refuse_hidden_gradients(trainer: Any) -> None:
    name = type(trainer.strategy).__name__
    if name.startswith(("FSDP", "DeepSpeed", "XLA")):
        raise TypeError(
            f"GradwatchCallback cannot see whole gradients under {name}: use DDPStrategy or, to shard the model, "
            "ModelParallelStrategy (FSDP2)"
        )
