"""What each contender does between ``backward`` and ``optimizer.step``.

All clip to a total norm of 1, and but for torch alone and ``watch`` all log the same: loss, total norm and the norm of
every layer, at every step. The peers get the norms as cheaply as torch gives them: one foreach call, which serves
clipping and logging, and one list. Their settings are the default ones, but for system metrics, console capture and
code upload, which are off, since nobody else does that work here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

MAX_NORM: Final = 1.0


class Logger(Protocol):
    """Clips and logs; ``finish`` returns when everything is on disk or in the server."""

    def clip(self, step: int, loss: Tensor) -> None: ...

    def finish(self) -> None: ...


def open_logger(key: str, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, url: str | None) -> Logger:
    """The contender's logger; it writes into ``folder`` or to the server at ``url``."""
    made: dict[str, Callable[[], Logger]] = {
        "torch": lambda: TorchOnly(model),
        "torch-again": lambda: TorchOnly(model),
        "norms": lambda: NormsOnly(model),
        "gradwatch": lambda: Gradwatch(model, optimizer, url),
        "tensorboard": lambda: TensorBoard(model, folder),
        "wandb": lambda: WandB(model, folder),
        "wandb-watch": lambda: WandBWatch(model, folder, log_freq=1),
        "wandb-watch-default": lambda: WandBWatch(model, folder, log_freq=None),
        "trackio": lambda: Trackio(model, None),
        "trackio-server": lambda: Trackio(model, url),
    }
    return made[key]()


def clip_and_measure(parameters: list[nn.Parameter]) -> tuple[list[float], float]:
    """``clip_grad_norm_`` with the same bits, that gives away the norms of which it makes the total norm."""
    gradients = [gradient for parameter in parameters if (gradient := parameter.grad) is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    total = torch.linalg.vector_norm(norms)
    torch.nn.utils.clip_grads_with_norm_(parameters, MAX_NORM, total)
    return norms.tolist(), total.item()


class TorchOnly:
    def __init__(self, model: nn.Module) -> None:
        self.parameters = list(model.parameters())

    def clip(self, step: int, loss: Tensor) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_NORM)

    def finish(self) -> None:
        pass


class NormsOnly:
    def __init__(self, model: nn.Module) -> None:
        self.parameters = list(model.parameters())

    def clip(self, step: int, loss: Tensor) -> None:
        clip_and_measure(self.parameters)
        loss.item()

    def finish(self) -> None:
        pass


class Gradwatch:
    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, url: str | None) -> None:
        import gradwatch

        self.monitor = gradwatch.watch(model, optimizer, clip=MAX_NORM, project="peers", server=url)

    def clip(self, step: int, loss: Tensor) -> None:
        self.monitor.clip(loss)

    def finish(self) -> None:
        self.monitor.finish()


class _Named:
    """Parameters and the names under which their norms are logged."""

    def __init__(self, model: nn.Module) -> None:
        named = list(model.named_parameters())
        self.parameters = [parameter for _, parameter in named]
        self.names = [f"grad_norm/{name}" for name, _ in named]

    def values(self, loss: Tensor) -> dict[str, float]:
        norms, total = clip_and_measure(self.parameters)
        return {"loss": loss.item(), "total_norm": total, **dict(zip(self.names, norms, strict=True))}


class TensorBoard(_Named):
    def __init__(self, model: nn.Module, folder: Path) -> None:
        super().__init__(model)
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder))

    def clip(self, step: int, loss: Tensor) -> None:
        for name, value in self.values(loss).items():
            self.writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self.writer.close()


def _offline_run(folder: Path) -> Any:
    import wandb

    quiet = wandb.Settings(
        x_disable_stats=True, x_disable_meta=True, disable_git=True, disable_code=True, console="off"
    )
    return wandb.init(project="peers", dir=str(folder), mode="offline", settings=quiet)


class WandB(_Named):
    def __init__(self, model: nn.Module, folder: Path) -> None:
        super().__init__(model)
        self.run = _offline_run(folder)

    def clip(self, step: int, loss: Tensor) -> None:
        self.run.log(self.values(loss))

    def finish(self) -> None:
        self.run.finish()


class WandBWatch:
    """Histograms of 64 bins, taken by hooks within ``backward``: of what has not been clipped yet."""

    def __init__(self, model: nn.Module, folder: Path, log_freq: int | None) -> None:
        self.parameters = list(model.parameters())
        self.run = _offline_run(folder)
        how = {} if log_freq is None else {"log_freq": log_freq}
        self.run.watch(model, log="gradients", **how)

    def clip(self, step: int, loss: Tensor) -> None:
        total = torch.nn.utils.clip_grad_norm_(self.parameters, MAX_NORM)
        self.run.log({"loss": loss.item(), "total_norm": total.item()})

    def finish(self) -> None:
        self.run.finish()


class Trackio(_Named):
    def __init__(self, model: nn.Module, url: str | None) -> None:
        super().__init__(model)
        import trackio

        self.trackio: Any = trackio
        trackio.init(project="peers", server_url=url, embed=False, auto_log_cpu=False, auto_log_gpu=False)

    def clip(self, step: int, loss: Tensor) -> None:
        self.trackio.log(self.values(loss), step=step)

    def finish(self) -> None:
        self.trackio.finish()
