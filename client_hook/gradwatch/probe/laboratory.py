"""Everything that probing a model takes, built once it is known that it fits into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import nn
from torch.optim import Optimizer

from gradwatch.console import say
from gradwatch.probe.activity import Activity, Bench
from gradwatch.probe.landscape_rows import LandscapeRows
from gradwatch.probe.memory import COPIES, PATH_COPIES, fits, free_bytes, megabytes
from gradwatch.probe.shadow import Closure, Shadow, UnfitProbe, bare, model_bytes, trained
from gradwatch.probe.snapshots import Snapshots
from gradwatch.probe.surface_probe import SurfaceProbe
from gradwatch.probe.trajectory_probe import TrajectoryProbe
from gradwatch.probe.trial import Trial
from gradwatch.probe.update_probe import UpdateProbe


class Laboratory:
    """The shadow of a model and the probes that work on it. ``clips``: whether the training clips at all.

    Raises UnfitProbe where the model cannot be probed or memory is short; says beforehand what it will take.
    """

    def __init__(
        self,
        model: nn.Module,
        closures: Sequence[Closure],
        optimizers: Sequence[Optimizer],
        *,
        clips: bool,
        send: Callable[[LandscapeRows], None],
        cost: Callable[[], tuple[float, float]],
        number: Callable[[], int],
    ) -> None:
        model = bare(model)
        originals = trained(model)
        if not originals:
            raise UnfitProbe("the model has no parameter that is trained")
        if any(weight.is_complex() for weight in originals):
            raise UnfitProbe("a model with complex parameters cannot be probed")
        memory, with_path = _memory(model)
        self.shadow = Shadow(model)
        bench = Bench(self.shadow, originals, closures, optimizers, send, cost, number, memory)
        snapshots = Snapshots(PATH_COPIES) if with_path else None
        self.trial = Trial(bench)
        self.updates = UpdateProbe(bench, clips=clips)
        self.surfaces = SurfaceProbe(bench, snapshots)
        self._probes: list[Activity] = [
            self.updates,
            self.surfaces,
            TrajectoryProbe(bench, self.surfaces, snapshots),
        ]

    def flush(self) -> None:
        """Send what is known by now: no more will be."""
        self.updates.flush()
        self.surfaces.flush()

    @property
    def must_go_on(self) -> Activity | None:
        """The probe whose next piece belongs to this very step."""
        return next((probe for probe in self._probes if probe.must_go_on), None)

    def in_turn(self) -> Iterator[Activity]:
        """The probes, those first that had the least of their share of time; whoever is waited for comes before."""
        if not self.trial.is_passed:
            yield self.trial
            return
        yield from sorted(
            self._probes,
            key=lambda probe: (not (probe is self.surfaces and self.surfaces.is_asked), probe.spent / probe.weight),
        )


def _memory(model: nn.Module) -> tuple[int, bool]:
    """Bytes that probing will take at most, and whether the trajectory plane is among what they pay for."""
    whole, moving = model_bytes(model)
    free = free_bytes(next(model.parameters()).device)
    for copies in (COPIES + PATH_COPIES, COPIES):
        needed = whole + copies * moving
        if fits(needed, free):
            without = "" if copies > COPIES else ", without the trajectory plane, which would take more"
            say(f"probing the loss landscape takes up to {megabytes(needed)} of memory{without}")
            return needed, copies > COPIES
    raise UnfitProbe(f"it would take {megabytes(needed)} of memory, and only {megabytes(free or 0)} are free")
