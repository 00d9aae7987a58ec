"""What a point takes on disk, pyramid included, with norms recorded from real trainings: lossless, by table.

Small models are trained with gradwatch, offline, on one thread: the demo's recurrent network, convolutions with batch
norm, a transformer, and the 150 tensors of the benchmark of peers. Their norms stay in --folder for the next call. Each
recording is then stored as --copies runs by a server's own store, sealed, and measured table by table (dbstat). So that
tiles of 64 layers are full, as in models worth watching, a run has the recording's layers several times, each time from
another block of 256 steps on: no two of them are alike within a tile.

    python -m benchmarks.disk [--steps 4096] [--layers 256] [--copies 4] [--folder FOLDER]

A point is one layer's norm at one step. "tiles" are the sealed steps, a dozen series of losses and the like included;
"pyramid" the levels of detail; "rest" all else but the pages that the hot log has left "free", which what comes next
takes. The bar: 3.4 bytes a point without these.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import gradwatch
import numpy as np
import torch
from gradwatch import frames
from gradwatch.frames import Kind
from gradwatch.leftovers import leftovers

from benchmarks.database import await_settled, file_bytes, free_bytes, table_bytes
from benchmarks.filling import fill
from benchmarks.machine import machine
from benchmarks.peers import training as peers
from benchmarks.peers.environment import default_folder
from benchmarks.peers.runs import end_by_terminating
from benchmarks.probe import MODELS, loss_of
from benchmarks.serving import server
from benchmarks.stream import Norms, Training, frame_rows

HEAD: Final = f"{'':14} {'layers':>6} {'steps':>7} {'tiles':>7} {'pyramid':>8} {'rest':>6} {'B/point':>8} {'free':>6}"
_BAR: Final = 3.4
_BLOCK: Final = 256  # steps of a tile
_TILE: Final = 64  # layers of a tile
_SECONDS: Final = 1800
_PYRAMID: Final = ("pyramid", "rollups")


def recorded(name: str, steps: int, folder: Path) -> Norms:
    """Steps x layers: the norms of a training, from ``folder`` or trained now."""
    file = folder / f"norms-{name}-{steps}.npy"
    if not file.exists():
        print(f"training {name} for {steps} steps ...", file=sys.stderr, flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part.npy")
        np.save(unfinished, _train(name, steps))
        unfinished.replace(file)
    norms: Norms = np.load(file)
    return norms


def _train(name: str, steps: int) -> Norms:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, loss = _language() if name == "language" else _small(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with tempfile.TemporaryDirectory(prefix="gradwatch-disk-") as spool:
        os.environ |= {"GRADWATCH_DIR": spool, "GRADWATCH_MODE": "offline"}
        with gradwatch.watch(model, optimizer, clip=1.0, name=name) as monitor:
            for step in range(steps):
                optimizer.zero_grad()
                found = loss(step)
                found.backward()
                monitor.clip(found)
                optimizer.step()
        return _norms(Path(spool) / "spool", len(list(model.parameters())))


def _small(name: str) -> tuple[torch.nn.Module, Callable[[int], Any]]:
    make, batches, _ = MODELS[name]
    model, data = make(), [batches(16, "cpu") for _ in range(64)]
    return model, lambda step: loss_of(model, data[step % len(data)])


def _language() -> tuple[torch.nn.Module, Callable[[int], Any]]:
    model, data = peers.LanguageModel(), peers.batches()

    def loss(step: int) -> Any:
        tokens = data[step % len(data)]
        logits = model(tokens[:, :-1])
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    return model, loss


def _norms(spool: Path, layers: int) -> Norms:
    """The norms in the only spool there."""
    (spooled,) = leftovers(spool)
    parts = []
    schema: list[frames.Column] = []
    for data in spooled.frames():
        frame = frames.decode(data)
        if frame.kind is Kind.LAYERS:
            schema = frames.columns_from_json(frame.header["columns"]) or schema
        elif frame.kind is Kind.STEPS:
            here = [column for column in schema if column.name not in frame.header.get("without", [])]
            body = frames.split(frame.body, here, frame.header["rows"])["grad_norm"]
            parts.append(np.frombuffer(body, "<f4").reshape(-1, layers))
    spooled.close(delivered=False)
    return np.concatenate(parts)


def filled(norms: Norms, layers: int) -> Norms:
    """The recording beside itself, moved by another number of blocks each time, up to ``layers`` or whole tiles."""
    blocks = max(1, len(norms) // _BLOCK)
    wide = np.concatenate([np.roll(norms, _BLOCK * block, axis=0) for block in range(blocks)], axis=1)
    most = min(layers, wide.shape[1])
    return np.ascontiguousarray(wide[:, : most // _TILE * _TILE or most])


def store(folder: Path, norms: Norms, copies: int) -> dict[str, float]:
    """Bytes a point of ``copies`` runs with the same norms, by tiles, pyramid and rest."""
    os.environ |= {"GRADWATCH_DIR": str(folder), "GRADWATCH_MODE": "online"}
    fill(folder, (data for number in range(copies) for data in _frames(f"run {number}", norms)))
    with server(folder):
        await_settled(folder, _SECONDS)
    points = copies * norms.size
    tables = table_bytes(folder)
    tiles = tables.get("tiles", tables.get("frames", 0))  # where steps lie in a store that has no tiles
    pyramid = sum(tables.get(name, 0) for name in _PYRAMID)
    free = free_bytes(folder)
    whole = file_bytes(folder) - free
    named = {"tiles": tiles, "pyramid": pyramid, "rest": whole - tiles - pyramid, "whole": whole, "free": free}
    return {name: size / points for name, size in named.items()}


def _frames(run: str, norms: Norms) -> Iterator[bytes]:
    training = Training(run, norms.shape[1])
    yield training.opening()
    yield from training.all_steps(len(norms), norms, frame_rows(norms.shape[1]))
    yield training.finish(len(norms) - 1)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4096, help="of each training, 16 to 1000000; default 4096")
    parser.add_argument("--layers", type=int, default=256, help="of each run, 1 to 16000; default 256")
    parser.add_argument("--copies", type=int, default=4, help="runs with the same norms, 1 to 1000; default 4")
    parser.add_argument("--models", nargs="+", choices=[*MODELS, "language"], default=[*MODELS, "language"])
    folder = default_folder().with_name("gradwatch-norms")
    parser.add_argument("--folder", type=Path, default=folder, help="of the recordings; default: %(default)s")
    given = parser.parse_args()
    if not (16 <= given.steps <= 10**6 and 1 <= given.layers <= 16_000 and 1 <= given.copies <= 1000):
        parser.error("an argument is out of its bounds: see --help")
    return given


def main() -> None:
    given = options()
    end_by_terminating()
    load = os.getloadavg()[0]
    print(HEAD, flush=True)
    for name in given.models:
        norms = filled(recorded(name, given.steps, given.folder.expanduser()), given.layers)
        with tempfile.TemporaryDirectory(prefix="gradwatch-disk-") as folder:
            found = store(Path(folder), norms, given.copies)
        verdict = "within" if found["whole"] <= _BAR else "ABOVE"
        print(
            f"{name:14} {norms.shape[1]:6} {len(norms):7} {found['tiles']:7.2f} {found['pyramid']:8.2f} "
            f"{found['rest']:6.2f} {found['whole']:8.2f} {found['free']:6.2f}  {verdict} {_BAR}",
            flush=True,
        )
    print(machine(("torch", "numpy", "numcodecs"), load), file=sys.stderr)


if __name__ == "__main__":
    main()
