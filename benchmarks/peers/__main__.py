"""What a training pays for logging every layer's gradient norm at every step: gradwatch beside its peers.

Each contender trains the same small transformer on the CPU in a process of its own, with one thread and one seed, and
clips to a total norm of 1. The contenders take turns, beginning at another one in every repeat; the numbers are medians
over the repeats. A point is one layer's norm at one step. "Lost" and "bytes/point" come from what is read back: of
gradwatch the server's SQLite database after finish, when the server has ended and its write-ahead log is folded in; of
a Trackio server likewise; of the others their files.

    python -m benchmarks.peers [--steps 500] [--repeats 3] [--only gradwatch,wandb] [--environment FOLDER]

The peers are installed into FOLDER, not into the environment that runs this: 1.2 GB with a CPU build of torch, 6 GB
with CUDA's; which of them is up to pip's settings. The trainings send nothing beyond this machine. Linux only.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.peers.contenders import chosen
from benchmarks.peers.environment import default_folder, prepare
from benchmarks.peers.runs import Run, end_by_terminating, train
from benchmarks.peers.table import lines, machine


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.peers"
    )
    parser.add_argument("--steps", type=int, default=500, help="20 to 20000; default 500")
    parser.add_argument("--repeats", type=int, default=3, help="1 to 20; default 3")
    parser.add_argument("--only", default="", help="contenders, comma separated; torch alone always joins")
    parser.add_argument("--environment", type=Path, default=default_folder(), help="default: %(default)s")
    given = parser.parse_args()
    if not (20 <= given.steps <= 20_000 and 1 <= given.repeats <= 20):
        parser.error("steps must be within 20 and 20000, repeats within 1 and 20")
    return given


def main() -> None:
    given = options()
    end_by_terminating()
    contenders = chosen(given.only)
    python = prepare(given.environment.expanduser().absolute())
    runs: dict[str, list[Run]] = {contender.key: [] for contender in contenders}
    loads = [os.getloadavg()[0]]
    for repeat in range(given.repeats):
        begin = repeat * len(contenders) // given.repeats
        for contender in contenders[begin:] + contenders[:begin]:
            runs[contender.key].append(train(contender, python, given.steps))
            print(f"repeat {repeat + 1}: {contender.key}", file=sys.stderr, flush=True)
    loads.append(os.getloadavg()[0])
    print("\n".join(lines(runs)))
    print(machine(runs[contenders[0].key][0].versions, loads))


if __name__ == "__main__":
    main()
