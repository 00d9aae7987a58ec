"""Which layers a sample takes: each in its turn, as many as can be paid for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from torch import Tensor

from gradwatch.measure.budget import Price
from gradwatch.measure.sample import Metric

if TYPE_CHECKING:
    from gradwatch.clipping.strategy import Gradients

# The fixed costs of one sample and of one layer more in it, as the number of elements that cost the same; for weight
# norms on a CPU about 30 and 8 microseconds. Their exact size matters little, since prices are learned.
PER_SAMPLE: Final = 16384
PER_LAYER: Final = 4096


@dataclass(slots=True, eq=False)
class Turns:
    """One metric's turns through the layers."""

    metric: Metric
    elements: Callable[[Tensor, Tensor], int]
    """How many are read of a weight and its gradient; 0: this layer cannot be measured."""
    price: Price
    row_bytes: int
    """Of one layer in a frame."""
    most_elements: int = 1 << 62
    """In one sample, unless its only layer has more."""
    queue: dict[int, None] = field(default_factory=dict)
    """Rows of the layer table; those sampled longest ago stand first."""

    def took(self, rows: Sequence[int]) -> None:
        """``rows`` had their turn."""
        for row in rows:
            del self.queue[row]
            self.queue[row] = None


@dataclass(slots=True, eq=False)
class Batch:
    """The layers of one sample."""

    rows: list[int]
    indices: list[int]
    """Which gradient of the step belongs to each of ``rows``."""
    units: float
    """The sample's size, for which prices are learned: elements, fixed costs included."""


class Rotation:
    """Round robin over the rows of the layer table; ``recorded`` and ``place`` are those of Sampler.

    Whoever waited longest comes first, so that clips of different layers (two optimizers that take turns) do not take
    turns away from each other.
    """

    def __init__(self, recorded: Sequence[int], place: Mapping[int, int] | None) -> None:
        self._recorded = list(recorded)
        self._place = place
        self._known: tuple[Tensor | None, list[int]] = (None, [])

    def batch(self, turns: Turns, gradients: Gradients, most_units: float, most_rows: int) -> Batch | None:
        """The layers that come next and lie on one device: one, and more up to ``most_units``. None: there is none."""
        indices = self.indices(gradients)
        batch = Batch([], [], PER_SAMPLE)
        device, elements = None, 0
        turns.queue = turns.queue or dict.fromkeys(range(len(indices)))
        for row in turns.queue:
            index = indices[row]
            if index < 0 or device not in (None, gradients.parameters[index].device):
                continue
            size = turns.elements(gradients.parameters[index], gradients.tensors[index])
            if not size:
                continue
            units, elements = batch.units + size + PER_LAYER, elements + size
            full = units > most_units or elements > turns.most_elements or len(batch.rows) >= most_rows
            if batch.rows and full:
                break
            device = gradients.parameters[index].device
            batch.rows.append(row)
            batch.indices.append(index)
            batch.units = units
        return batch if batch.rows else None

    def indices(self, gradients: Gradients) -> list[int]:
        """For each row the gradient that belongs to it, -1 where it has none or the host does not know which."""
        if gradients.places is None:
            count = len(gradients.tensors)
            return [place if place < count else -1 for place in self._recorded]
        known, indices = self._known
        if known is not gradients.places:
            indices = self._look_up(gradients.places, gradients.parameters)
            self._known = (gradients.places, indices)
        return indices

    def _look_up(self, places: Tensor, parameters: Sequence[Tensor]) -> list[int]:
        if self._place is not None:
            index_of = {self._place.get(id(parameter), -1): index for index, parameter in enumerate(parameters)}
        elif places.device.type == "cpu":
            index_of = {place: index for index, place in enumerate(places.tolist())}
        else:
            index_of = {}
        return [index_of.get(place, -1) for place in self._recorded]
