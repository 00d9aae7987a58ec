"""``gradwatch.watch``: builds the monitor of a training."""

from __future__ import annotations

import os
import platform
import secrets
import socket
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

import gradwatch
from gradwatch import frames, ranks, registry, uncaught
from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.measure_only import MeasureOnly
from gradwatch.clipping.strategy import Strategy
from gradwatch.config import storable_config
from gradwatch.console import say
from gradwatch.control import Control, OnCheckpoint
from gradwatch.engine import NonFinite
from gradwatch.globs import Globs
from gradwatch.layers import named_parameters
from gradwatch.monitor import Monitor
from gradwatch.probe.probing import Probing
from gradwatch.probe.shadow import Closure
from gradwatch.recording import NullSink, Recording, Sink
from gradwatch.settings import Settings
from gradwatch.step_writer import Wanted


def watch(  # noqa: PLR0913 - one keyword per thing a user may say
    model: nn.Module,
    optimizer: Optimizer | Iterable[Optimizer] | None = None,
    *,
    clip: float | Strategy | None,
    nonfinite: NonFinite = "record",
    project: str | None = None,
    name: str | None = None,
    group: str | None = None,
    tags: Iterable[str] = (),
    config: Any = None,
    total_steps: int | None = None,
    start_step: int = 0,
    layers: str | Iterable[str] | None = None,
    sample_budget: float = 0.01,
    probe: Closure | Sequence[Closure] | None = None,
    probe_budget: float = 0.01,
    control: bool = False,
    on_checkpoint: OnCheckpoint | None = None,
    fold: bool = True,
    server: str | None = None,
    mode: str | None = None,
) -> Monitor:
    """Watch ``model``: every ``monitor.clip(loss)`` then clips its gradients and records the step.

    ``optimizer``: the one, or all, that step the model. ``clip``: a number (global L2 norm), a strategy such as
    ``gradwatch.Value(0.5)``, or None (measure only). ``nonfinite``: what to do with a non-finite total norm: "record"
    (as torch does: nothing), "skip" (leave parameters and optimizer state as they are) or "raise". ``project``,
    ``name``, ``group``, ``tags``, ``config`` (a mapping, a namespace or a dataclass): how the run is found again;
    config values under names such as "api_key" are masked. ``total_steps``: for the estimated end. ``start_step``:
    number of the first step. ``layers``: which are recorded, such as ``["encoder.*", "!*.bias"]``; all are clipped.
    ``sample_budget``: share of the step time for weight norms, update ratios and histograms; 0: none. ``probe``: for
    the loss landscape: the loss of the copy of the model it is called with, on a held-out batch, always the same;
    several, each with its own batch, give verdicts a standard error. ``probe_budget``: share of the time for that.
    ``control``: let the dashboard ask for surfaces, another threshold, and the end (``monitor.should_stop``); with
    ``on_checkpoint``, a function of the monitor, for checkpoints. ``fold``: let plain fused optimizers multiply by the
    coefficient in passing; gradients then stay as they are until the step. ``server``: address, by default the one on
    this machine. ``mode``: "online", "offline", "disabled". Watching the same model or optimizer again finishes the
    earlier monitor. Parameters that come later are seen once an optimizer has them. Raises TypeError or ValueError.
    """
    optimizers, strategy = _checked(model, optimizer, clip, nonfinite)
    probing = _probing(model, probe, _share("probe_budget", probe_budget))
    settings = Settings.gather(server=server, mode=mode, project=project, group=group)
    offered = _offered(control, strategy, on_checkpoint, probe is not None and probe_budget > 0)
    hello = _hello(settings, name, tags, config, total_steps) | offered
    registry.replace(model, optimizers)
    monitor = Monitor(
        model,
        optimizers,
        strategy,
        nonfinite=nonfinite,
        start_step=frames.check_count("start_step", start_step),
        wanted=Wanted(_layers(layers, model), _share("sample_budget", sample_budget), probing),
        fold=fold,
        open_sink=_sink_opener(settings, hello, nonfinite),
        control=_control(settings, model, offered, on_checkpoint),
    )
    registry.remember(model, monitor)
    monitor.watch_wiring()
    return monitor


def _checked(
    model: nn.Module, optimizer: Optimizer | Iterable[Optimizer] | None, clip: float | Strategy | None, nonfinite: str
) -> tuple[list[Optimizer], Strategy]:
    """The optimizers and the strategy, once all of these are known to be right."""
    if nonfinite not in ("record", "skip", "raise"):
        raise ValueError(f'nonfinite must be "record", "skip" or "raise", not {nonfinite!r}')
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    # Its flat parameters hide the layers, and torch's own clip_grad_norm_ is wrong on them, too.
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise TypeError(
            "FullyShardedDataParallel (FSDP1) is not supported: shard with torch.distributed.fsdp.fully_shard (FSDP2)"
        )
    return _optimizers(optimizer), _strategy(clip)


def _optimizers(optimizer: Optimizer | Iterable[Optimizer] | None) -> list[Optimizer]:
    given = [] if optimizer is None else [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    for one in given:
        if not isinstance(one, Optimizer):
            raise TypeError(f"optimizer must be a torch optimizer or a list of them, not {type(one).__name__}")
    return given


def _share(name: str, share: float) -> float:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise ValueError(f"{name} must be a share of the step time such as 0.01, or 0, not {share!r}")
    return float(share)


def _probing(model: nn.Module, probe: Closure | Sequence[Closure] | None, budget: float) -> Probing | None:
    given: Any = [] if probe is None else probe
    closures: list[Closure] = list(given) if isinstance(given, list | tuple) else [given]
    for closure in closures:
        if not callable(closure):
            raise TypeError(
                f"probe must be a function of the model that gives its loss, or a list of them, not {closure!r}"
            )
    # The first rank alone: its copy of the model needs no other, and all would draw the same.
    if not closures or not budget or ranks.rank() != 0:
        return None
    return Probing(weakref.ref(model), closures, budget)


def _offered(control: bool, strategy: Strategy, on_checkpoint: OnCheckpoint | None, probes: bool) -> dict[str, Any]:
    """What the hello says of commands: nothing, or ``control`` (all that older servers know) and which there are."""
    if on_checkpoint is not None and not callable(on_checkpoint):
        raise TypeError(f"on_checkpoint must be a function of the monitor, not {on_checkpoint!r}")
    if not control:
        if on_checkpoint is not None:
            raise ValueError("on_checkpoint is called when somebody asks for a checkpoint: allow that by control=True")
        return {}
    has_threshold = not isinstance(strategy, MeasureOnly)
    offers = {"set_threshold": has_threshold, "stop": True, "checkpoint": on_checkpoint, "probe_landscape": probes}
    return {"control": True, "commands": [command for command, offered in offers.items() if offered]}


def _control(
    settings: Settings, model: nn.Module, offered: dict[str, Any], on_checkpoint: OnCheckpoint | None
) -> Control | None:
    if not offered or settings.mode != "online":
        return None
    return Control(offered["commands"], (layer.name for layer, _ in named_parameters(model, [])), on_checkpoint)


def _layers(patterns: str | Iterable[str] | None, model: nn.Module) -> Globs | None:
    if patterns is None:
        return None
    chosen = Globs(patterns)
    names = [layer.name for layer, _ in named_parameters(model, [])]
    if names and not any(map(chosen, names)):
        raise ValueError(f"layers={chosen.patterns} chooses none of the model's layers, such as {names[0]!r}")
    return chosen


def _strategy(clip: float | Strategy | None) -> Strategy:
    if clip is None:
        return MeasureOnly()
    if isinstance(clip, Strategy):
        return clip
    if isinstance(clip, bool) or not isinstance(clip, int | float):
        raise TypeError(f"clip must be a number, a strategy such as gradwatch.Value(0.5), or None, not {clip!r}")
    return GlobalNorm(clip)


def _hello(
    settings: Settings, name: str | None, tags: Iterable[str], config: Any, total_steps: int | None
) -> dict[str, Any]:
    """The hello frame's header, but for writer, seq and what only the first step knows."""
    run = settings.run or _common(secrets.token_hex(8), settings.every_rank)
    return {
        "project": frames.check_text("project", settings.project),
        "run": frames.check_text("the run (GRADWATCH_RUN)", run),
        "launch": _launch(),
        "rank": ranks.rank(),
        "world_size": ranks.world_size(),
        "name": frames.check_text("name", name if name is not None else _default_name(run)),
        "group": frames.check_text("group", settings.group) if settings.group is not None else None,
        "tags": [frames.check_text("a tag", tag) for tag in tags],
        "config": storable_config({} if config is None else config),
        "total_steps": None if total_steps is None else frames.check_count("total_steps", total_steps),
        "host": {
            "hostname": socket.gethostname(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        },
        "started_at": time.time(),
        "client": gradwatch.__version__,
    }


def _common(run: str, every_rank: bool) -> str:
    """The first rank's ``run`` on every rank, where all of them stream and can talk by now."""
    if not (every_rank and ranks.can_talk()):
        return run
    said = [run]
    torch.distributed.broadcast_object_list(said, src=0)
    return said[0]


def _default_name(run: str) -> str:
    script = os.path.basename(sys.argv[0] if sys.argv else "") or "run"
    return f"{script.removesuffix('.py')}-{run[:4]}"


def _launch() -> str:
    """Shared by the ranks of one launch, so that they become one attempt; random for a process on its own."""
    if ranks.world_size() == 1:
        return secrets.token_hex(8)
    names = ["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_RESTART_COUNT"]
    names += ["MASTER_ADDR", "MASTER_PORT"]
    return "-".join(os.environ.get(name, "") for name in names)[: frames.MAX_NAME]


def _sink_opener(settings: Settings, hello: dict[str, Any], nonfinite: str) -> Callable[[int, Strategy], Sink]:
    def open_sink(step: int, strategy: Strategy) -> Sink:
        if settings.mode == "disabled" or (hello["rank"] != 0 and not settings.every_rank):
            return NullSink()
        clip = {**strategy.describe(), "threshold_of": strategy.threshold_of}
        norm_type = clip.get("norm_type", 2.0)
        said = {**hello, "start_step": step, "clip": clip, "norm_type": norm_type, "nonfinite": nonfinite}
        try:
            recording = Recording(settings, secrets.token_hex(16), said, frames.run_id(hello["project"], hello["run"]))
        except Exception as error:
            say(f"nothing will be recorded: {error!r}")
            return NullSink()
        uncaught.tell(weakref.ref(recording))
        return recording

    return open_sink
