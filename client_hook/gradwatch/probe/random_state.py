"""The random numbers that everybody in the process shares: kept aside while a probe runs, and put back."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class RandomState:
    """States of the global generators of torch (CPU, and CUDA devices in use), NumPy and Python, as they are now.

    NumPy's counts only where NumPy was imported. Taking it costs some 20 microseconds, and on CUDA no wait.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda = {device: torch.cuda.get_rng_state(device) for device in devices if device.type == "cuda"}
        self._python = random.getstate()
        numpy = sys.modules.get("numpy")
        self._numpy: Any = None if numpy is None else numpy.random.get_state()

    def restore(self) -> None:
        """Set the generators back to how they were."""
        torch.set_rng_state(self._cpu)
        for device, state in self._cuda.items():
            torch.cuda.set_rng_state(state, device)
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RandomState) or self._cuda.keys() != other._cuda.keys():
            return False
        pairs = [(self._cpu, other._cpu), *((state, other._cuda[device]) for device, state in self._cuda.items())]
        same = all(torch.equal(*pair) for pair in pairs)
        return same and self._python == other._python and _parts(self._numpy) == _parts(other._numpy)

    __hash__ = None  # type: ignore[assignment]


@contextmanager
def random_numbers_of(seed: int, devices: Iterable[torch.device]) -> Iterator[None]:
    """Within the block every global generator gives the numbers of ``seed``; after it, it goes on as if nothing was.

    Generators are seeded one by one: ``torch.manual_seed`` would leave a seed behind for devices not yet in use.
    """
    devices = list(devices)
    before = RandomState(devices)
    try:
        torch.default_generator.manual_seed(seed)
        for device in devices:
            if device.type == "cuda":
                _cuda_generator(device).manual_seed(seed)
        random.seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed % 2**32)
        yield
    finally:
        before.restore()


def _cuda_generator(device: torch.device) -> torch.Generator:
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


def _parts(state: Any) -> tuple[Any, ...] | None:
    """NumPy's state with its key as bytes, so that it can be compared."""
    return None if state is None else (state[0], bytes(state[1]), *state[2:])


def devices_of(tensors: Iterable[Tensor]) -> list[torch.device]:
    """The devices on which tensors lie, each once."""
    return list(dict.fromkeys(tensor.device for tensor in tensors))
