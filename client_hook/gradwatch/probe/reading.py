"""Numbers on their way from the training's device to the host, without anybody waiting for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradwatch.measure.sample import queue_copy


class Reading:
    """``tensors`` as they are now, as float64 vectors on the host once ``ready``."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._sizes = [tensor.numel() for tensor in tensors]
        # Losses that the closure brought to the host already make nobody wait for a device.
        device = next((tensor.device for tensor in tensors if tensor.device.type == "cuda"), torch.device("cpu"))
        # (Of what other devices send without blocking, nobody says when it has arrived; nor has every one float64.)
        flat = [tensor.detach().reshape(-1).to(device, non_blocking=device.type == "cuda") for tensor in tensors]
        flat = [tensor.to(torch.float64) for tensor in flat]
        joined = torch.cat(flat) if flat else torch.zeros(0, dtype=torch.float64)
        self._host = joined
        self._copied: Any = None
        if device.type == "cuda":
            self._host, self._copied = queue_copy(joined)

    def ready(self) -> bool:
        """Whether ``values`` would wait for nothing."""
        return self._copied is None or bool(self._copied.query())

    def values(self) -> list[npt.NDArray[np.float64]]:
        """One vector for each tensor."""
        ends = np.cumsum(self._sizes)[:-1]
        return np.split(self._host.cpu().numpy(), ends)
