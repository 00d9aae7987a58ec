"""A running server takes what writers leave that die while it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from gradwatch_server.drain import leftover_names

from tests.processes import ServerProcess
from tests.spool_writer import SpoolWriter, stored_steps

KILLED = """
import os, sys
from pathlib import Path
from tests.spool_writer import SpoolWriter
writer = SpoolWriter(Path(sys.argv[1]), run=sys.argv[2])
writer.steps(5, 200)
os.kill(os.getpid(), 9)
"""


def test_writers_that_are_killed_while_it_runs_are_delivered_and_living_ones_are_not(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with ServerProcess(tmp_path) as server:
        living = SpoolWriter(spool, run="living")
        living.steps(5, 10)
        for number in range(2):
            subprocess.run([sys.executable, "-c", KILLED, str(spool), f"killed {number}"], timeout=60)
        assert len(list(spool.iterdir())) == 3
        found = server.await_json("/api/runs", lambda found: len(found["runs"]) == 2)
        assert {run["project"] for run in found["runs"]} == {"p"}
        until = time.monotonic() + 30
        while len(list(spool.iterdir())) > 1:
            assert time.monotonic() < until
            time.sleep(0.05)
        for run in found["runs"]:
            assert server.raw_series(run["id"], ["loss"])["step"] == list(range(1000))
        living.end()  # and what ends now is found at the next look
        server.await_json("/api/runs", lambda found: len(found["runs"]) == 3)
        assert stored_steps(server, living.writer, 49) == list(range(50))


def test_what_counts_as_left(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    assert leftover_names(spool) == set()
    living, ended, elsewhere, gone = (SpoolWriter(spool, run=name) for name in "abcd")
    for writer in (ended, elsewhere, gone):
        writer.end()
    for writer, age in ((elsewhere, 60), (gone, 180)):
        lock = spool / writer.writer.key / "lock"
        lock.write_text(json.dumps({"host": "another", "name": "node7", "pid": 1}))
        os.utime(lock, (time.time() - age,) * 2)
    (spool / "thesis").mkdir()
    (spool / ("f" * 32)).mkdir()
    assert leftover_names(spool) == {ended.writer.key, gone.writer.key}
    living.spool.close(delivered=True)
