"""One measurement of some layers at one step, on its way from the training's device to the host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Metric = Literal["weight_norm", "update_ratio", "layer_coefficient", "grad_histogram"]


@dataclass(slots=True, eq=False)
class Sample:
    """``values`` on the training's device: (layers,), for histograms (layers, magnitude.WIDTH).

    ``places``: which recorded layers, as rows of the layer table. Made by the training thread, which queues the copy to
    the host and goes on; another thread asks for it.
    """

    step: int
    metric: Metric
    places: npt.NDArray[np.int64]
    values: Tensor
    _host: Tensor | None = field(default=None, init=False, repr=False)
    _copied: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.values.device.type == "cuda":
            self._host, self._copied = queue_copy(self.values)

    def ready(self) -> bool:
        """Whether ``numpy`` would give the values at once. Never waits."""
        return self._copied is None or bool(self._copied.query())

    def numpy(self) -> npt.NDArray[Any]:
        """The values on the host.

        To be asked for once ``ready``; on devices other than the CPU and CUDA's it makes the asking thread wait.
        """
        return (self.values if self._host is None else self._host).cpu().numpy()


def queue_copy(values: Tensor) -> tuple[Tensor, Any]:
    """A copy of ``values`` in pinned memory that comes to be once the returned event has happened."""
    host = torch.empty(values.shape, dtype=values.dtype, device="cpu", pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(values.device))
    return host, copied
