"""What a whole training step costs with gradwatch streaming to a live server, beside torch's clipping alone.

Both train the same small transformer, each in a process of its own, in ABBA order: torch, gradwatch, gradwatch, torch.
The ratio of a repeat is that of the two means of its medians; A/A is torch's second run by its first, and says what the
machine alone makes of equal work. The bar is a ratio of at most 1.00 within the A/A band.

    python -m benchmarks.training [--steps 500] [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.peers.contenders import chosen
from benchmarks.peers.runs import Run, end_by_terminating, train
from benchmarks.peers.table import machine, median_step, percentile, quiet_step

_USELESS: Final = 1.1


@dataclass(frozen=True, slots=True)
class Repeat:
    """Two trainings of each, in the order torch, gradwatch, gradwatch, torch."""

    torch: tuple[Run, Run]
    gradwatch: tuple[Run, Run]

    @property
    def ratio(self) -> float:
        """gradwatch / torch."""
        return sum(map(median_step, self.gradwatch)) / sum(map(median_step, self.torch))

    @property
    def control(self) -> float:
        """torch / torch."""
        first, second = map(median_step, self.torch)
        return second / first


def take_turns(steps: int) -> Repeat:
    """One repeat."""
    bare, watched = (next(c for c in chosen("gradwatch") if c.key == key) for key in ("torch", "gradwatch"))
    first, *middle, last = (train(contender, sys.executable, steps) for contender in (bare, watched, watched, bare))
    return Repeat((first, last), (middle[0], middle[1]))


def report(repeats: Sequence[Repeat]) -> list[str]:
    """The numbers of all repeats."""
    bare = [run for repeat in repeats for run in repeat.torch]
    watched = [run for repeat in repeats for run in repeat.gradwatch]
    ratios, controls = [repeat.ratio for repeat in repeats], [repeat.control for repeat in repeats]
    # A repeat's second run may as well have come first.
    widest = max(max(control, 1 / control) for control in controls)
    ratio = statistics.median(ratios)
    quiet = [statistics.median(map(quiet_step, runs)) for runs in (watched, bare)]
    same = len({run.weights for run in bare + watched}) == 1
    lost = sum(run.tensors * len(run.times) - run.stored["points"] for run in watched)
    return [
        f"{'':10} median ms   p99 ms  training CPU s  server CPU s",
        _line("torch", bare),
        _line("gradwatch", watched),
        f"gradwatch / torch: {ratio:.3f} (from {min(ratios):.3f} to {max(ratios):.3f} over {len(repeats)} repeats); "
        f"A/A: {statistics.median(controls):.3f}, band {1 / widest:.3f} to {widest:.3f}: "
        f"{verdict(ratio, widest)}",
        f"the same of quiet steps (10th percentile): {quiet[0] / quiet[1]:.3f}",
        f"trained weights {'the same' if same else 'DIFFER'}; layer norms kept "
        f"{sum(run.stored['points'] for run in watched)}, lost {lost}",
    ]


def verdict(ratio: float, widest: float) -> str:
    """Whether the bar is reached; a band as wide as ``_USELESS`` would let anything pass."""
    if widest > _USELESS:
        return "the machine was too busy to tell"
    if ratio <= 1.0:
        return "reached"
    return "reached within the band" if ratio <= widest else "MISSED"


def _line(name: str, runs: Sequence[Run]) -> str:
    middle, slow = statistics.median(map(median_step, runs)), statistics.median(percentile(r.steps, 0.99) for r in runs)
    cpu, server = statistics.median(run.cpu for run in runs), statistics.median(run.beside for run in runs)
    return f"{name:10} {middle:9.2f} {slow:8.2f} {cpu:15.2f} {server:13.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500, help="20 to 20000; default 500")
    parser.add_argument("--repeats", type=int, default=5, help="1 to 50; default 5")
    given = parser.parse_args()
    if not (20 <= given.steps <= 20_000 and 1 <= given.repeats <= 50):
        parser.error("steps must be within 20 and 20000, repeats within 1 and 50")
    end_by_terminating()
    loads = [os.getloadavg()[0]]
    repeats = []
    for number in range(given.repeats):
        repeats.append(take_turns(given.steps))
        newest = repeats[-1]
        print(f"repeat {number + 1}: {newest.ratio:.3f}, A/A {newest.control:.3f}", file=sys.stderr, flush=True)
    loads.append(os.getloadavg()[0])
    print("\n".join(report(repeats)))
    versions = repeats[0].torch[0].versions
    print(machine({"torch": versions["torch"]}, loads))


if __name__ == "__main__":
    main()
