"""The runs of all repeats as a Markdown table."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.peers.contenders import BASELINE, CONTENDERS, CONTROL, Contender
from benchmarks.peers.runs import Run

HEAD = (
    "| contender | step, median ms | p99 ms | added, median ms | added, quiet ms | added, mean ms | training CPU s "
    "| beside it CPU s | finish s | points kept | lost | bytes/point |"
)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of them do not exceed."""
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)]


def median_step(run: Run) -> float:
    """Milliseconds of the run's middle step."""
    return statistics.median(run.steps)


def quiet_step(run: Run) -> float:
    """Milliseconds at the 10th percentile: of the steps that a busy machine has disturbed least."""
    return percentile(run.steps, 0.1)


def mean_step(run: Run) -> float:
    """Milliseconds of a step, rare slow ones included."""
    return statistics.fmean(run.steps)


def over_repeats(runs: Sequence[Run], measured: Callable[[Run], float]) -> float:
    """The median over repeats of what ``measured`` finds in each run."""
    return statistics.median(measured(run) for run in runs)


def added(mine: Sequence[Run], runs: dict[str, list[Run]], step: Callable[[Run], float]) -> float:
    """Milliseconds more than torch alone, each run against both trainings of torch alone in its own repeat."""
    bare = zip(runs[BASELINE], runs[CONTROL], strict=True)
    return statistics.median(
        step(run) - statistics.fmean(map(step, both)) for run, both in zip(mine, bare, strict=True)
    )


def lines(runs: dict[str, list[Run]]) -> list[str]:
    """Table and footnotes; ``runs``: by contender, all of the same repeats."""
    made = [HEAD, "|---" + "|---:" * (HEAD.count("|") - 2) + "|"]
    made += [_row(contender, runs) for contender in CONTENDERS if contender.key in runs]
    return [*made, "", *_notes(runs)]


def _row(contender: Contender, runs: dict[str, list[Run]]) -> str:
    mine = runs[contender.key]
    is_bare = contender.key in (BASELINE, CONTROL)
    cells = [
        f"{over_repeats(mine, median_step):.2f}",
        f"{over_repeats(mine, lambda run: percentile(run.steps, 0.99)):.2f}",
        *("" if is_bare else f"{added(mine, runs, how):+.2f}" for how in (median_step, quiet_step, mean_step)),
        f"{over_repeats(mine, lambda run: run.cpu):.2f}",
        f"{over_repeats(mine, lambda run: run.beside):.2f}",
        f"{over_repeats(mine, lambda run: run.finishing):.2f}",
        *_kept(contender, mine),
    ]
    return f"| {contender.title} | {' | '.join(cells)} |"


def _kept(contender: Contender, runs: Sequence[Run]) -> list[str]:
    """Points kept, points lost, bytes a point."""
    run = runs[0]
    size = over_repeats(runs, lambda run: float(run.bytes))
    if histograms := run.stored["histograms"]:
        return [f"{histograms} histograms", "", f"{size / histograms:.0f} a histogram"]
    if not contender.logs_norms:
        return ["", "", ""]
    kept = min(run.stored["points"] for run in runs)
    return [f"{kept}", f"{run.tensors * len(run.times) - kept}", f"{size / kept:.1f}" if kept else ""]


def _notes(runs: dict[str, list[Run]]) -> list[str]:
    everything = [run for series in runs.values() for run in series]
    pairs = [(median_step(once), median_step(again)) for once, again in zip(runs[BASELINE], runs[CONTROL], strict=True)]
    ratios = [again / once for once, again in pairs]
    apart = [again - once for once, again in pairs]
    quiet = [quiet_step(again) - quiet_step(once) for once, again in zip(runs[BASELINE], runs[CONTROL], strict=True)]
    sums = {f"{run.stored['sum']:.8g}" for run in everything if run.contender.logs_norms}
    run = everything[0]
    return [
        f"A/A (torch alone, again / torch alone): {statistics.median(ratios):.3f}, from {min(ratios):.3f} to "
        f"{max(ratios):.3f} over {len(ratios)} repeats; in ms from {min(apart):+.2f} to {max(apart):+.2f}, "
        f"of quiet steps (10th percentile) from {min(quiet):+.2f} to {max(quiet):+.2f}.",
        f"{run.tensors} layers, {run.parameters / 1e6:.1f} M parameters, {len(run.times)} steps, "
        f"the first {len(run.times) - len(run.steps)} not timed.",
        f"Trained weights: {_agreement({run.weights for run in everything})}; "
        f"sum of the norms kept: {_agreement(sums)}.",
    ]


def _agreement(found: set[str]) -> str:
    return "the same in every run" if len(found) == 1 else f"{len(found)} DIFFERENT ones"


def machine(versions: dict[str, str], loads: Sequence[float]) -> str:
    """One line: processor, system, libraries, how busy the machine was."""
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    load = f"load average {loads[0]:.1f} before, {loads[-1]:.1f} after"
    return (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, 1 thread, "
        f"{libraries}; {load}."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
