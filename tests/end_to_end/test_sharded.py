"""Models spread over two processes: every rank clips by the norm of the whole gradient, by every strategy."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gradwatch import frames
from gradwatch.frames import Kind

STRATEGIES = [
    "g.GlobalNorm(0.5)",
    "g.GlobalNorm(0.5, 1.0)",
    "g.GlobalNorm(0.5, float('inf'))",
    "g.Value(0.05)",
    "g.PerLayer(0.2)",
    "g.PerGroup([0.3])",
    "g.PerGroup({'0.*': 0.2, '*.bias': 0.1})",
    "g.AGC(0.05)",
    "g.AutoClip(50.0, cap=2.0)",
    "g.ZClip(warmup=1, cap=2.0)",
    "g.AdaGC(warmup=1)",
    "g.EMARatio(1.1, per_layer=True)",
    "g.EMARatio(1.1)",
    "g.SkipSpikes(window=2, min_count=2, by='median', scale=1.5, action='clip', cap=2.0)",
    "g.Normalize(0.3)",
]
CASES = [
    *(["sharded", strategy] for strategy in STRATEGIES),
    *([scenario, "g.GlobalNorm(0.5)"] for scenario in ("mixed", "ddp", "nan", "streams")),
]


@dataclass(frozen=True)
class Ran:
    """What both ranks said of each case, and where they recorded."""

    said: dict[tuple[str, str], list[Any]]
    folder: Path


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    # One pair of processes for all cases: starting them is what takes long.
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "cases.json").write_text(json.dumps(CASES))
    script = Path(__file__).with_name("sharded_clip.py")
    ended = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=150)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "could not" not in ended.stderr, ended.stderr[-2000:]
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    return Ran({(*case,): [rank[at] for rank in ranks] for at, case in enumerate(CASES)}, folder)  # type: ignore[misc]


@pytest.mark.timeout(160)
@pytest.mark.parametrize("case", [case for case in CASES if case[0] != "nan"], ids=" ".join)
def test_ranks_clip_alike_and_as_the_whole_model_is_clipped(case: list[str], ran: Ran) -> None:
    first, second = ran.said[case[0], case[1]]
    assert first == second
    for spread, whole in first["totals"]:
        assert spread == pytest.approx(whole, rel=1e-6)
    assert len(first["differences"]) == 12 and max(first["differences"]) < 1e-6


@pytest.mark.timeout(160)
def test_a_nan_in_one_ranks_shard_is_skipped_by_both(ran: Ran) -> None:
    for rank in ran.said["nan", "g.GlobalNorm(0.5)"]:
        assert all(math.isnan(spread) and whole > 0.5 for spread, whole in rank["totals"])
        assert rank["differences"] == []


@pytest.mark.timeout(160)
def test_on_request_every_rank_streams_into_one_run(ran: Ran) -> None:
    hellos = []
    for spool in (ran.folder / "spool").iterdir():
        data = b"".join(segment.read_bytes() for segment in sorted(spool.iterdir()) if segment.stat().st_size)
        hellos += [frame.header for frame in frames.decode_all(data) if frame.kind is Kind.HELLO]
    assert sorted(hello["rank"] for hello in hellos) == [0, 1]
    assert len({hello["run"] for hello in hellos}) == len({hello["launch"] for hello in hellos}) == 1
