"""Clipping groups of layers, each by the norm of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from gradwatch.clipping.adaptive import on_host
from gradwatch.clipping.global_norm import checked_norm_type
from gradwatch.clipping.norms import Measurement
from gradwatch.clipping.per_layer import decide_by_factor
from gradwatch.clipping.scaling import EPSILON
from gradwatch.clipping.state import widest_float
from gradwatch.clipping.strategy import Decision, Gradients, Layers, Strategy
from gradwatch.clipping.threshold import Scheduled, Threshold
from gradwatch.console import say


class PerGroup(Strategy):
    """Multiply the gradients of each group by ``min(1, max_norm of the group / (norm of the group + 1e-6))``.

    The rule of one ``torch.nn.utils.clip_grad_norm_`` call for each group (as Megatron-LM does with its
    ``grad_norm_group``), in its arithmetic; group norms may differ from torch's in the last digit, since they are added
    up in another order. Clip event: some group's norm > its threshold.

    ``max_norm`` says what the groups are:

    - a number: the optimizers' parameter groups, all with this threshold;
    - a list: one threshold for each parameter group, in order, through all optimizers. Groups beyond the end of the
      list get the smallest of its thresholds, and one console line says so;
    - a dictionary of patterns, such as ``{"encoder.*": 1.0, "*.bias": 0.1, "*": 0.5}``: a layer belongs to the first
      pattern that its name matches. Layers that match none form no group and are not clipped; one console line says
      which. Last ``"*"`` takes all the others.

    Layers that no known optimizer holds are a group of their own. Every threshold is > 0, or a function of the step;
    ``norm_type``: p >= 1 or infinity. Raises ValueError or TypeError otherwise.

    ``threshold``, and what is recorded, is the smallest one; setting it scales all of them alike.

    A non-finite norm spoils its own group only, as in torch. Coefficient and cosine are then NaN. The cosine needs L2
    norms: another ``norm_type`` costs one more pass over the gradients, on the CPU at clipped steps, elsewhere always.
    """

    threshold_of = "group"

    def __init__(
        self, max_norm: Scheduled | Sequence[Scheduled] | Mapping[str, Scheduled], norm_type: float = 2.0
    ) -> None:
        self.norm_type = checked_norm_type(norm_type)
        self._patterns = _patterns(max_norm)
        self._several = isinstance(max_norm, list | tuple)
        self._limits = _thresholds(max_norm)
        self._groups: _Groups | None = None
        self._told: set[str] = set()

    @property
    def threshold(self) -> float:
        return min(limit.value for limit in self._limits)

    @threshold.setter
    def threshold(self, value: float) -> None:
        checked = Threshold("max_norm", value).value
        smallest = self.threshold
        for limit in self._limits:
            limit.set(checked if limit.value == smallest else limit.value * (checked / smallest))

    def decide(self, measurement: Measurement, gradients: Gradients) -> Decision:
        limits = [limit.at(gradients.step) for limit in self._limits]
        smallest = min(limits)
        total, norms = measurement.total, measurement.norms
        if not gradients.tensors:
            return Decision(1.0, False, smallest)
        groups = self._groups
        if groups is None or not groups.fit(self._known_by(gradients.layers), norms):
            groups = self._groups = self._grouped(gradients.layers, norms)
        if on_host(total) and total.item() < 0.999 * smallest - EPSILON:
            return Decision(1.0, False, smallest)
        group_norms = groups.norms(norms, gradients.places, self.norm_type)
        thresholds = groups.thresholds(limits, smallest)
        # As torch divides a number by a tensor; dividing two tensors would round differently.
        of_group = ((group_norms + EPSILON).reciprocal() * thresholds.to(norms.dtype)).clamp(max=1.0)
        clipped = (group_norms.to(thresholds.dtype) > thresholds).any()
        factors = groups.spread(of_group, gradients.places)
        return decide_by_factor(measurement, gradients, factors, clipped, smallest)

    def _known_by(self, layers: Layers) -> Sequence[object]:
        """What the grouping of the layers follows from."""
        return layers.groups if self._patterns is None else layers.names

    def _grouped(self, layers: Layers, norms: Tensor) -> _Groups:
        if self._patterns is None:
            self._check_count(max(layers.groups, default=-1) + 1)
            return _Groups(layers.groups, layers.groups, norms)
        return _Groups(layers.names, self._by_pattern(self._patterns, layers.names), norms)

    def _by_pattern(self, patterns: list[str], names: Sequence[str]) -> list[int | None]:
        matching = (next((at for at, glob in enumerate(patterns) if fnmatchcase(name, glob)), None) for name in names)
        found = list(matching)
        outside = [name for name, group in zip(names, found, strict=True) if group is None]
        if outside:
            self._tell("outside", f'{_some(outside)} match no pattern and are not clipped; a last "*" takes them in')
        idle = [pattern for at, pattern in enumerate(patterns) if at not in found]
        if idle:
            self._tell("idle", f"no layer is left for {_some(idle)}, which match none or come too late")
        return found

    def _check_count(self, count: int) -> None:
        given = len(self._limits)
        if self._several and count != given:
            rest = "the others get the smallest" if count > given else "the last ones are not used"
            self._tell("count", f"{given} thresholds for {count} parameter groups, {rest}; give one for each")

    def _tell(self, kind: str, line: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            say(f"PerGroup: {line}")

    def fall_back(self, parameters: Sequence[Tensor]) -> Tensor:
        """Clips all together by the smallest threshold, under which every group stays below its own."""
        return torch.nn.utils.clip_grad_norm_(parameters, self.threshold, self.norm_type)

    def describe(self) -> dict[str, Any]:
        described: list[Any] = [limit.describe() for limit in self._limits]
        max_norm: Any = described if self._several else described[0]
        if self._patterns is not None:
            max_norm = dict(zip(self._patterns, described, strict=True))
        return {
            "strategy": "PerGroup",
            "max_norm": max_norm,
            "norm_type": "inf" if math.isinf(self.norm_type) else self.norm_type,
        }

    def state_dict(self) -> dict[str, Any]:
        return {"thresholds": [limit.save() for limit in self._limits]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError when the saved strategy had another number of thresholds."""
        saved = list(state["thresholds"])
        if len(saved) != len(self._limits):
            raise ValueError(f"the saved PerGroup has {len(saved)} thresholds, this one has {len(self._limits)}")
        for limit, value in zip(self._limits, saved, strict=True):
            limit.load(value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_groups": None}


class _Groups:
    """Which group each layer is in, as tensors on the device, so that a step takes a few operations for all groups.

    ``known_by``: what the grouping follows from; ``members``: for each layer its group, None: in none.
    """

    def __init__(self, known_by: Sequence[object], members: Sequence[int | None], norms: Tensor) -> None:
        self._known_by = list(known_by)
        self._groups = sorted({group for group in members if group is not None})
        slots = {group: slot for slot, group in enumerate(self._groups)}
        rows: list[list[int]] = [[] for _ in slots]
        for layer, group in enumerate(members):
            if group is not None:
                rows[slots[group]].append(layer)
        width = max(map(len, rows), default=1)
        nowhere = len(members)  # the place of a zero behind the norms, which fills short rows
        flat = [layer for row in rows for layer in row + [nowhere] * (width - len(row))]
        self._layers_of = torch.tensor(flat, dtype=torch.long, device=norms.device)
        self._shape = (len(rows), width)
        free = len(rows)  # the place of a 1 behind the factors
        slot_of = [free if group is None else slots[group] for group in members]
        self._slot_of = torch.tensor(slot_of, dtype=torch.long, device=norms.device)
        self._limits = [math.inf] * len(rows)
        self._thresholds = torch.full((len(rows),), math.inf, dtype=widest_float(norms.device), device=norms.device)

    def fit(self, known_by: Sequence[object], norms: Tensor) -> bool:
        return self._slot_of.device == norms.device and self._known_by == list(known_by)

    def norms(self, norms: Tensor, places: Tensor | None, norm_type: float) -> Tensor:
        """The norm of each group, shape (groups,), of ``norms``, shape (gradients,)."""
        if places is None:
            laid_out = torch.cat([norms, norms.new_zeros(1)])
        else:
            laid_out = norms.new_zeros(len(self._slot_of) + 1).index_copy_(0, places.to(norms.device), norms)
        table = laid_out.index_select(0, self._layers_of).view(self._shape)
        as_torch: Tensor = torch.linalg.vector_norm(table, norm_type, dim=1)
        wide = torch.linalg.vector_norm(table, norm_type, dim=1, dtype=widest_float(norms.device))
        # A power that overflows would set the whole group to zero.
        return torch.where(as_torch.isinf(), wide.to(as_torch.dtype), as_torch)

    def thresholds(self, limits: list[float], smallest: float) -> Tensor:
        """The threshold of each group, shape (groups,). Filled in one by one: copying a list waits for the device."""
        for slot, group in enumerate(self._groups):
            limit = limits[group] if 0 <= group < len(limits) else smallest
            if limit != self._limits[slot]:
                self._limits[slot] = limit
                self._thresholds.select(0, slot).fill_(limit)
        return self._thresholds

    def spread(self, factors: Tensor, places: Tensor | None) -> Tensor:
        """For each gradient the factor of its group, 1 where it is in none, shape (gradients,)."""
        each = torch.cat([factors, factors.new_ones(1)]).index_select(0, self._slot_of)
        return each if places is None else each.index_select(0, places.to(each.device))


def _patterns(max_norm: object) -> list[str] | None:
    if not isinstance(max_norm, Mapping):
        return None
    patterns = list(max_norm)
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ValueError('a dictionary of thresholds goes by name patterns, such as {"encoder.*": 1.0, "*": 0.5}')
    return patterns


def _thresholds(max_norm: Scheduled | Sequence[Scheduled] | Mapping[str, Scheduled]) -> list[Threshold]:
    named: Iterable[tuple[object, Scheduled]]
    if isinstance(max_norm, Mapping):
        named = max_norm.items()
    elif isinstance(max_norm, list | tuple):
        named = enumerate(max_norm)
    else:
        return [Threshold("max_norm", max_norm)]  # type: ignore[arg-type]
    thresholds = [Threshold(f"max_norm[{key!r}]", value) for key, value in named]
    if not thresholds:
        raise ValueError("max_norm is empty: write one number, one for each parameter group, or patterns")
    return thresholds


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more
