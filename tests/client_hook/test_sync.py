"""``gradwatch sync`` against real servers: everything once, in little memory, however often it is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from gradwatch.leftovers import size_of
from gradwatch.segment import segment_files

from tests.processes import clean_environment
from tests.server.served import Served
from tests.spool_writer import SpoolWriter, stored_steps


def syncing(directory: Path, server: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gradwatch.cli", "sync", str(directory), "--server", server],
        env=clean_environment(directory.parent),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def synced(directory: Path, server: str) -> tuple[int, str]:
    with syncing(directory, server) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def test_ended_runs_are_delivered_and_living_ones_are_left_alone(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    ended = [SpoolWriter(spool, run=f"r{number}") for number in range(3)]
    living = SpoolWriter(spool, run="living")
    for writer in (*ended, living):
        writer.steps(5, 20)
    for writer in ended:
        writer.end()
    with Served(tmp_path / "server") as server:
        code, said = synced(spool, server.url)
        assert code == 0 and "3 spools delivered" in said and "1 spool left alone" in said
        for writer in ended:
            assert stored_steps(server, writer.writer, 99) == list(range(100))
        assert [run["id"] for run in server.get("/api/runs")["runs"] if run["name"] == "living"] == []
        assert [folder.name for folder in spool.iterdir()] == [living.writer.key]
        living.spool.close(delivered=False)
        assert synced(spool, server.url)[0] == 0 and not list(spool.iterdir())
        assert stored_steps(server, living.writer, 99) == list(range(100))


def test_a_sync_that_is_killed_again_and_again_loses_nothing_and_gets_on(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    writer = SpoolWriter(spool, cap=32 << 20, layers=200)  # segments of 2 MiB
    writer.steps(8, 3000)
    writer.end()
    sizes = [size_of(writer.spool.folder)]
    assert sizes[0] > 20 << 20 and len(segment_files(writer.spool.folder)) > 8
    with Served(tmp_path / "server") as server:
        for _ in range(20):
            with syncing(spool, server.url) as process:
                until = time.monotonic() + 30
                while process.poll() is None and size_of(writer.spool.folder) > sizes[-1] - (3 << 20):
                    assert time.monotonic() < until
                    time.sleep(0.01)
                process.kill()
            if not writer.spool.folder.exists():
                break
            sizes.append(size_of(writer.spool.folder))
        assert sizes == sorted(sizes, reverse=True) and len(sizes) > 3, sizes
        code, said = synced(spool, server.url)
        assert code == 0 and not list(spool.iterdir()), said
        assert stored_steps(server, writer.writer, 24_000) == list(range(24_000))


def test_its_memory_does_not_grow_with_the_spool(tmp_path: Path) -> None:
    code = (
        "import sys, tracemalloc; from pathlib import Path; from gradwatch.settings import Settings\n"
        "from gradwatch.sync import deliver_leftovers; tracemalloc.start()\n"
        "deliver_leftovers(Path(sys.argv[1]), Settings.gather(server=sys.argv[2]))\n"
        "print(tracemalloc.get_traced_memory()[1])"
    )
    peaks = []
    with Served(tmp_path / "server") as server:
        for frames in (50, 4000):
            spool = tmp_path / f"spool{frames}"
            writer = SpoolWriter(spool, run=f"of {frames}", layers=200)
            writer.steps(8, frames)
            writer.end()
            ended = subprocess.run(
                [sys.executable, "-c", code, str(spool), server.url],
                env=clean_environment(tmp_path), capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            peaks.append(int(ended.stdout))
            assert not list(spool.iterdir())
    assert peaks[1] < peaks[0] + (6 << 20), peaks  # bytes; the spool has 30 MiB


def test_two_at_once_share_the_work(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    writers = [SpoolWriter(spool, run=f"r{number}") for number in range(6)]
    for writer in writers:
        writer.steps(5, 100)
        writer.end()
    with Served(tmp_path / "server") as server:
        both = [syncing(spool, server.url) for _ in range(2)]
        said = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        delivered = [int(found[1]) for out, _ in said if (found := re.search(r"(\d+) spools? delivered", out))]
        assert sum(delivered) == 6 and not list(spool.iterdir())
        for writer in writers:
            assert stored_steps(server, writer.writer, 499) == list(range(500))


def test_what_a_server_does_not_take_stays_and_is_said(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    writer = SpoolWriter(spool)
    writer.steps(5, 3)
    writer.end()
    preamble = writer.spool.folder / "preamble.gw"
    kept = preamble.read_bytes()
    preamble.write_bytes(bytes(len(kept)))  # its hello has rotted
    with Served(tmp_path / "server") as server:
        code, said = synced(spool, server.url)
        assert code == 1 and "its hello is damaged" in said and "1 spool not taken" in said and "Traceback" not in said
        assert len(segment_files(writer.spool.folder)) == 1
        preamble.write_bytes(kept)
        assert synced(spool, server.url)[0] == 0
        assert stored_steps(server, writer.writer, 14) == list(range(15))


def test_a_server_that_dies_in_between_is_one_line(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    writer = SpoolWriter(spool, cap=64 << 20, layers=200)
    writer.steps(8, 3000)
    writer.end()
    with Served(tmp_path / "server") as server:
        process = syncing(spool, server.url)
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGSTOP)  # so that the server is gone when it goes on
    os.kill(process.pid, signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in err
    assert "cannot be reached" in err or "went away" in err
    assert size_of(writer.spool.folder) > 10 << 20


def test_of_a_run_that_outgrew_its_cap_every_step_is_stored_or_counted(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    writer = SpoolWriter(spool, cap=256 << 10, layers=50)
    for _ in range(100):
        writer.steps(4, 10)
        writer.scalars()
    writer.end()
    with Served(tmp_path / "server") as server:
        assert synced(spool, server.url)[0] == 0
        stored = stored_steps(server, writer.writer, writer.step)
        events = server.get(f"/api/runs/{writer.writer.run}/events")["events"]
        dropped = [re.match(r"(\d+) rows .* \(steps (\d+) to (\d+)\): (.*)", event["text"]) for event in events]
        counted = sum(int(found[1]) for found in dropped if found and found[4] == "the spool was full (steps)")
        assert len(stored) + counted == writer.step and stored[-1] == writer.step - 1 and counted > 1000
        assert stored == list(range(counted, writer.step))  # the oldest have gone
        assert len(events) < 10, events
        mine = server.get(f"/api/runs/{writer.writer.run}/series?names=mine&columns=0")["series"]["mine"]["value"]
        assert mine.count(1.0) == 100  # what was logged has not
