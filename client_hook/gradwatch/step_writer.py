"""One step's measurement on its way into a row: laid out over all layers, or over modules where they are too many."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim import Optimizer

from gradwatch import frames
from gradwatch.clipping.strategy import Decision, Measurement
from gradwatch.console import say
from gradwatch.layers import LayerTable, fold_into_modules
from gradwatch.measure.execution_order import ExecutionOrder
from gradwatch.measure.learning_rate import learning_rate
from gradwatch.measure.loss_scale import loss_scale
from gradwatch.recorder import MISSING, DeviceRecorder, Recorder
from gradwatch.recording import Sink

Bitmap = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Present:
    """Where the gradients of a step stand among all layers."""

    places: list[int]
    index: Tensor
    absent: Bitmap
    """One byte a layer, 1: it had no gradient."""


class StepWriter:
    """Writes the steps of one monitor to ``sink``."""

    def __init__(self, table: LayerTable, order: ExecutionOrder, optimizers: Sequence[Optimizer], sink: Sink) -> None:
        self.sink = sink
        self._table = table
        self._order = order
        self._optimizers = optimizers
        self._recorder: Recorder | None = None
        self._present: Present | None = None
        self._fold: _Fold | None = None
        self._written_at: float | None = None
        self._loss_told = False

    def table_has_grown(self) -> None:
        """The next step opens a new layer table."""
        self._recorder = None
        self._present = None

    def where_present(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> Present | None:
        """Where ``gradients``, those of ``parameters`` that have one, stand; None: one for every layer, in order."""
        if parameters is self._table.parameters and len(gradients) == len(parameters):
            return None
        places = [self._table.place[id(parameter)] for parameter in parameters if parameter.grad is not None]
        if self._present is None or self._present.places != places:
            absent = np.ones(len(self._table.parameters), np.uint8)
            absent[places] = 0
            device = gradients[0].device if gradients else torch.device("cpu")
            self._present = Present(places, torch.tensor(places, dtype=torch.long, device=device), absent)
        return self._present

    def write(
        self,
        step: int,
        loss: Tensor | float | None,
        measurement: Measurement,
        decision: Decision,
        present: Present | None,
        scaler: Any,
    ) -> None:
        """Record one step; on another device than the CPU without waiting for it."""
        now = time.perf_counter()
        seconds = MISSING if self._written_at is None else now - self._written_at
        self._written_at = now
        recorder = self._recorder or self._begin(measurement)
        norms, absent = self._spread(measurement.norms, present)
        host = (learning_rate(self._optimizers), loss_scale(scaler), seconds)
        if isinstance(recorder, DeviceRecorder):
            _write_from_device(recorder, step, loss, measurement.total, decision, host, norms, absent)
            return
        total = measurement.total.item()
        value = MISSING if loss is None else self._number(loss)
        coefficient = float(decision.coefficient)
        scalars = (value, total, coefficient, decision.threshold, float(decision.clipped), *host)
        recorder.write(step, scalars, norms, absent)
        if not (math.isfinite(total) and coefficient > 0.1):
            self.sink.urgent()

    def _number(self, loss: Tensor | float) -> float:
        try:
            return float(loss.item() if isinstance(loss, Tensor) else loss)
        except (TypeError, ValueError, RuntimeError) as error:
            if not self._loss_told:
                self._loss_told = True
                say(f"the loss given to clip is no single number ({error}); steps are recorded without it")
            return MISSING

    def _spread(self, norms: Tensor, present: Present | None) -> tuple[Tensor, Bitmap | None]:
        """Norms laid out over all layers, in the recorded precision, and the packed bitmap of absent ones."""
        if norms.dtype is not torch.float32 and norms.dtype is not torch.float64:
            norms = norms.float()
        if not norms.numel():
            norms = norms.to(self._table.device)
        absent = None
        if present is not None:
            laid_out = torch.zeros(len(self._table.parameters), dtype=norms.dtype, device=norms.device)
            norms, absent = laid_out.index_copy_(0, present.index.to(norms.device), norms), present.absent
        if self._fold is not None:
            norms, absent = self._fold(norms, absent)
        return norms, None if absent is None else np.packbits(absent, bitorder="little")

    def _begin(self, measurement: Measurement) -> Recorder:
        """Open the layer table; at the first step, because only then the execution order is known."""
        self._order.close()
        layers = self._table.layers_now()
        if len(layers) > frames.MAX_LAYERS:
            if self._fold is None:
                say(f"{len(layers)} layers are more than {frames.MAX_LAYERS}: modules are recorded in their place")
            layers, into = fold_into_modules(layers)
            self._fold = _Fold(into, len(layers), measurement)
        ranks = self._order.ranks([layer.owner for layer in layers])
        # From the parameters, not the measurement: the first step may have no gradient at all.
        device, wide = self._table.device, self._table.has_float64
        kind = Recorder if device.type == "cpu" else DeviceRecorder
        self._recorder = kind(len(layers), torch.float64 if wide else torch.float32)
        self.sink.begin([layer.as_json(rank) for layer, rank in zip(layers, ranks, strict=True)], self._recorder)
        return self._recorder


class _Fold:
    """Module norms in place of layer norms: the p-norm of the norms of a module's layers, in float64."""

    def __init__(self, into: list[int], modules: int, measurement: Measurement) -> None:
        self._into = torch.tensor(into, device=measurement.norms.device)
        self._places = np.array(into)
        self._modules = modules
        self._norm_type = measurement.norm_type

    def __call__(self, norms: Tensor, absent: Bitmap | None) -> tuple[Tensor, Bitmap | None]:
        folded = torch.zeros(self._modules, dtype=torch.float64, device=norms.device)
        if math.isinf(self._norm_type):
            folded.scatter_reduce_(0, self._into, norms.double(), "amax")
        else:
            folded.index_add_(0, self._into, norms.double() ** self._norm_type).pow_(1 / self._norm_type)
        if absent is not None:
            some = np.zeros(self._modules, np.uint8)
            np.maximum.at(some, self._places, 1 - absent)
            absent = 1 - some
        return folded.to(norms.dtype), absent


def _write_from_device(
    recorder: DeviceRecorder,
    step: int,
    loss: Tensor | float | None,
    total: Tensor,
    decision: Decision,
    host: tuple[float, float, float],
    norms: Tensor,
    absent: Bitmap | None,
) -> None:
    on_device = loss.detach() if isinstance(loss, Tensor) and loss.device.type != "cpu" else None
    value = 0.0 if on_device is not None else MISSING if loss is None else float(loss)
    tail = [
        (item.detach() if isinstance(item, Tensor) else total.new_full((), float(item))).to(total.device, norms.dtype)
        for item in (0.0 if on_device is None else on_device, total, decision.coefficient, decision.clipped)
    ]
    values = torch.cat([norms, torch.stack([item.reshape(()) for item in tail])])
    scalars = (value, 0.0, 0.0, decision.threshold, 0.0, *host)
    recorder.write_from_device(step, scalars, values, absent, on_device is not None)
