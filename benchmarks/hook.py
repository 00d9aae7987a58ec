"""What ``monitor.clip`` costs beside ``torch.nn.utils.clip_grad_norm_``: spool on disk, live server, sender at work.

Ratios of interleaved runs in one process: per round each contender clips the same gradients once, in turning order,
freshly written as a backward pass would leave them. The second contender of torch is the A/A control: its ratio to the
first shows what the machine alone makes of equal work. The last four columns are CPU seconds over all rounds: the calls
themselves, the threads that record and send, and the server.

    python -m benchmarks.hook [--rounds 1500] [--widths 168,256,384] [--threads 1] [--only clip,norms,step]

Three parts: ``clip``: fp32, p = 2, nothing clipped; ``norms``: p = 1, p = inf and bf16 (whose norms torch computes in
bf16, we in fp32); ``step``: every step clipped, the clip and a fused AdamW step together.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.serving import beside_seconds, cpu_seconds, server

TENSORS = (48, 144, 288)
WARM_UP = 520  # untimed clips; the check of the wiring gives up after 512 when it sees no optimizer step
HEAD = "tensors  Mparams  torch us   ours us   ratio     A/A  torch s   ours s threads s server s"


@dataclass(frozen=True)
class Case:
    """What is clipped, and how."""

    tensors: int
    width: int
    p: float = 2.0
    dtype: torch.dtype = torch.float32
    stepped: bool = False
    """Every step is clipped and followed by a fused AdamW step, which is timed with it."""

    @property
    def threshold(self) -> float:
        return 0.1 if self.stepped else 1e6


@dataclass
class Contender:
    """One model of its own, and what is timed on it."""

    parameters: list[nn.Parameter]
    run: Callable[[], object]


def contender(case: Case, loss: Tensor, watched: bool) -> Contender:
    import gradwatch

    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(case.width, case.width, dtype=case.dtype) for _ in range(case.tensors // 2)])
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True) if case.stepped else None
    step = optimizer.step if optimizer is not None else lambda: None
    if not watched:
        return Contender(
            parameters, lambda: (torch.nn.utils.clip_grad_norm_(parameters, case.threshold, case.p), step())
        )
    name = f"{case.tensors} tensors, width {case.width}, p = {case.p}"
    clip = gradwatch.GlobalNorm(case.threshold, case.p)
    monitor = gradwatch.watch(model, optimizer, clip=clip, project="benchmark", name=name)
    return Contender(parameters, lambda: (monitor.clip(loss), step()))


def measure(case: Case, rounds: int, server_pid: int) -> str:
    """One row of the table."""
    loss = torch.tensor(1.0)
    contenders = [contender(case, loss, watched) for watched in (False, True, False)]
    source = [torch.randn_like(parameter) * 1e-3 for parameter in contenders[0].parameters]
    times: list[list[float]] = [[] for _ in contenders]
    for one in contenders:
        for parameter, gradient in zip(one.parameters, source, strict=True):
            parameter.grad = gradient.clone()
        for _ in range(WARM_UP):
            one.run()
    server_before, beside_before = cpu_seconds(server_pid), beside_seconds()
    for number in range(rounds):
        for turn in range(len(contenders)):
            which = (number + turn) % len(contenders)
            for parameter, gradient in zip(contenders[which].parameters, source, strict=True):
                parameter.grad = gradient.clone()
            begun = time.perf_counter()
            contenders[which].run()
            times[which].append(time.perf_counter() - begun)
            for parameter in contenders[which].parameters:
                parameter.grad = None
    beside = beside_seconds() - beside_before
    theirs, ours, control = (statistics.median(series) * 1e6 for series in times)
    server_used = cpu_seconds(server_pid) - server_before
    size = sum(parameter.numel() for parameter in contenders[0].parameters) / 1e6
    return (
        f"{case.tensors:7} {size:8.1f} {theirs:9.0f} {ours:9.0f} {ours / theirs:7.3f} {control / theirs:7.3f}"
        f" {sum(times[0]):8.2f} {sum(times[1]):8.2f} {beside:9.2f} {server_used:8.2f}"
    )


def parts(widths: list[int]) -> dict[str, list[tuple[str, list[Case]]]]:
    """Titles and cases of each part."""
    middle = widths[len(widths) // 2]
    sizes = [(tensors, width) for width in widths for tensors in TENSORS]
    at_middle = [(tensors, middle) for tensors in TENSORS]
    return {
        "clip": [("fp32, p = 2, nothing clipped", [Case(*size) for size in sizes])],
        "norms": [
            ("p = 1", [Case(*size, p=1.0) for size in at_middle]),
            ("p = inf", [Case(*size, p=math.inf) for size in at_middle]),
            ("bf16", [Case(*size, dtype=torch.bfloat16) for size in sizes]),
        ],
        "step": [("every step clipped, with a fused AdamW step", [Case(*size, stepped=True) for size in sizes])],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=1500)
    parser.add_argument("--widths", default="168,256,384")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="clip,norms,step")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as directory:
        os.environ["GRADWATCH_DIR"] = directory
        print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, {arguments.threads} thread(s)")
        with server(Path(directory)) as pid:
            chosen = parts(list(map(int, arguments.widths.split(","))))
            for part in arguments.only.split(","):
                for title, cases in chosen[part]:
                    print(f"\n{title}\n{HEAD}", flush=True)
                    for case in cases:
                        print(measure(case, arguments.rounds, pid), flush=True)


if __name__ == "__main__":
    main()
