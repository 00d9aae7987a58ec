"""Hugging Face Transformers: ``watch_trainer(trainer)``, before ``trainer.train()``.

The Trainer (5.23, ``_run_epoch``) calls ``accelerator.clip_grad_norm_`` and only then ``on_pre_optimizer_step``, so a
callback alone sees clipped gradients: gradwatch takes the place of the accelerator's function. With
``max_grad_norm=0`` the Trainer calls it all the same, with an infinite threshold, to have a norm to log; older versions
do not call it, and there ``on_pre_optimizer_step`` takes the step.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.console import say
from gradwatch.integrations.accelerate import Interception, Watched, inner_optimizer, refuse_hidden_gradients
from gradwatch.integrations.checkpoint import Kept
from gradwatch.integrations.metrics import loggable
from gradwatch.integrations.one_threshold import Clip, check_options, one_threshold
from gradwatch.monitor import Monitor
from gradwatch.uncaught import reason_of
from gradwatch.watching import watch

try:
    from transformers.trainer_callback import TrainerCallback
    from transformers.trainer_utils import get_last_checkpoint
except ModuleNotFoundError as missing:
    if missing.name != "transformers":
        raise
    raise ImportError(
        "gradwatch.integrations.transformers needs Transformers: pip install 'transformers[torch]'", name="transformers"
    ) from None

_STATE_FILE: Final = "gradwatch.json"  # beside the Trainer's own trainer_state.json
# What the Trainer logs that gradwatch records itself, and what is no measure of the model.
_NOT_LOGGED: Final = frozenset({"loss", "grad_norm", "learning_rate", "epoch", "step", "total_flos", "train_loss"})
_SPEED: Final = ("_runtime", "_per_second")


def watch_trainer(trainer: Any, clip: Clip = "trainer", **options: Any) -> GradwatchCallback:
    """Have every training of ``trainer`` clipped and recorded; returns the callback, whose ``monitor`` is the run's.

    ``clip``: as for ``gradwatch.watch``; by default "trainer": ``args.max_grad_norm``, by gradwatch's hand. None:
    gradwatch only measures, the Trainer clips as told. ``options``: the other arguments of ``gradwatch.watch``;
    ``config`` is the TrainingArguments, ``name`` their ``run_name`` and ``total_steps`` the Trainer's, unless given.

    The loss is the sum of what was propagated backward since the last step, which under accumulation is the mean over
    the micro-batches (the Trainer's own log is an average over steps). What the Trainer evaluates or logs is recorded,
    a checkpoint is an event and holds gradwatch's state, and a training that raises ends as failed. Under
    ``control=True`` the Trainer saves, and stops, at the end of the step at which that was asked for.

    ``trainer.train`` raises ValueError when ``clip`` and a ``max_grad_norm`` other than its default differ. Raises
    TypeError under DeepSpeed, FSDP 1 and XLA, where whole gradients are out of sight.
    """
    check_options(options)
    refuse_hidden_gradients(trainer.accelerator)
    earlier = trainer.pop_callback(GradwatchCallback)
    if earlier is not None:
        earlier.release()
    callback = GradwatchCallback(trainer, clip, options)
    trainer.add_callback(callback)
    return callback


class GradwatchCallback(TrainerCallback):
    """Made by ``watch_trainer``: a callback is not told its trainer otherwise."""

    def __init__(self, trainer: Any, clip: Clip, options: dict[str, Any]) -> None:
        self.monitor: Monitor | None = None
        """Of the training under way, or the last one."""
        self._trainer = trainer
        self._clip = clip
        self._options = options
        self._resumed_from: str | None = None
        self._kept: Kept | None = None
        self._watched: Watched | None = None
        self._interception: Interception | None = None
        self._step_before = -1
        self._told = False
        self._must_save = False
        self._train = trainer.train
        trainer.train = self._train_watched

    def release(self) -> None:
        """Give the trainer its own ``train`` back."""
        self._trainer.train = self._train

    def _train_watched(self, resume_from_checkpoint: Any = None, *arguments: Any, **named: Any) -> Any:
        """In the place of ``trainer.train``: only from around it is the end of a failed training seen."""
        self._resumed_from = _checkpoint_folder(resume_from_checkpoint, self._trainer.args.output_dir)
        try:
            return self._train(resume_from_checkpoint, *arguments, **named)
        except BaseException as error:
            self._end("failed", reason_of(error))
            raise

    # The Trainer's events, in the order of a training.

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._end("failed", "started again")  # after auto_find_batch_size ran out of memory
        trainers = GlobalNorm(args.max_grad_norm) if args.max_grad_norm > 0 else None
        rival = None if args.max_grad_norm == _default(args, "max_grad_norm") and self._clip != "trainer" else trainers
        clip = one_threshold(self._clip, rival, f"TrainingArguments(max_grad_norm={args.max_grad_norm!r})")
        arguments = {
            "config": args.to_dict(),
            "name": args.run_name,
            "total_steps": state.max_steps if state.max_steps > 0 else None,
            "start_step": state.global_step,
            "on_checkpoint": self._save_soon if self._options.get("control") else None,
            **self._options,
        }
        self.monitor = watch(given["model"], [inner_optimizer(given["optimizer"])], clip=clip, **arguments)
        self._kept = Kept(self.monitor)
        self._load_state()
        self._step_before = self.monitor.step
        follows = self._clip == "trainer" and clip is not None
        self._watched = Watched(self.monitor, given["model"], follows=follows, measures_only=clip is None)
        self._watched.followed = args.max_grad_norm  # by which it was built; a checkpoint may have brought another
        self._interception = Interception.of(self._trainer.accelerator)
        self._interception.add(self._watched)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.monitor is None or self._interception is None or self._watched is None:
            return
        if self.monitor.step == self._step_before:
            if args.max_grad_norm > 0:
                self._say("steps are not recorded: the Trainer clipped without accelerator.clip_grad_norm_")
            else:
                self._interception.step(self._watched, None)
        self._step_before = self.monitor.step

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        # Both on every rank at the same step, as the Trainer needs it.
        if self._interception is not None and self.monitor is not None and self.monitor.should_stop:
            control.should_training_stop = True
        if self._must_save:
            self._must_save = False
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        if self.monitor is None or self._interception is None:
            return
        wanted = {n: v for n, v in (logs or {}).items() if n not in _NOT_LOGGED and not n.endswith(_SPEED)}
        if wanted:
            self.monitor.log(loggable(wanted, "logged "))

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.monitor is None or self._kept is None or self._interception is None:
            return
        self.monitor.event("checkpoint", f"step {state.global_step}")
        if not args.should_save:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        try:
            (folder / _STATE_FILE).write_text(json.dumps(self._kept.save()), encoding="utf-8")
        except (OSError, TypeError, ValueError) as error:
            self._say(f"gradwatch's state is not in the checkpoint: {error}")

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._end("finished", "")

    def _end(self, state: str, reason: str) -> None:
        if self._interception is not None and self.monitor is not None:
            self._interception.remove(self.monitor)
            self._interception = self._watched = None
            self.monitor.finish(state, reason)

    def _save_soon(self, monitor: Monitor) -> None:
        """In the place of a script's own ``on_checkpoint``: the Trainer saves at the end of this step."""
        self._must_save = True

    def _load_state(self) -> None:
        path = None if self._resumed_from is None else Path(self._resumed_from) / _STATE_FILE
        if path is None or self._kept is None or not path.is_file():
            return  # a checkpoint of a training that was not watched: global_step says where it stands
        try:
            self._kept.load(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, KeyError, TypeError, ValueError) as error:
            self._say(f"gradwatch's state in the checkpoint could not be read: {error!r}")

    def _say(self, text: str) -> None:
        if not self._told:
            self._told = True
            say(text)


def _checkpoint_folder(resume_from_checkpoint: Any, output_dir: str) -> str | None:
    """As ``trainer.train`` understands its argument: a path, True for the last one, False or None."""
    if resume_from_checkpoint is True:
        return get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None
    return str(resume_from_checkpoint) if resume_from_checkpoint else None


def _default(args: Any, name: str) -> Any:
    return next((field.default for field in fields(args) if field.name == name), None)
