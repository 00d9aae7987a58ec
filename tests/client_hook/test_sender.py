"""A sender against servers that are odd."""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path
from typing import Self

from gradwatch.sender import Sender
from gradwatch.spool import Spool

from tests.processes import ServerProcess
from tests.spool_writer import SpoolWriter, stored_steps

WRITER = "0123456789abcdef" * 2


def closing_takes(tmp_path: Path, address: str | None) -> float:
    spool = Spool(tmp_path, WRITER, 1 << 20)
    sender = Sender(spool, find=lambda: address, token=None, on_server=lambda url: None, last_step=lambda: None)
    sender.start()
    time.sleep(0.3)
    begun = time.monotonic()
    assert not sender.close(5, begun + 2)
    spool.close(delivered=False)
    return time.monotonic() - begun


def test_without_a_server_nobody_waits_at_the_end(tmp_path: Path) -> None:
    assert closing_takes(tmp_path / "none", None) < 1
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert closing_takes(tmp_path / "refused", f"http://127.0.0.1:{port}") < 1


def test_a_server_that_never_answers_costs_two_seconds_at_most(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert closing_takes(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}") < 3


class Sending:
    """A writer with its sender, as a training has them, and a thread that makes steps until told to stop."""

    def __init__(self, directory: Path, address: str, *, layers: int = 3) -> None:
        self.made = SpoolWriter(directory, layers=layers)
        self.sender = Sender(
            self.made.spool,
            find=lambda: address,
            token=None,
            on_server=lambda url: None,
            last_step=lambda: self.made.step,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live)

    def _live(self) -> None:
        while not self._stop.wait(0.05):
            self.made.steps(1)
            self.sender.notify()

    def __enter__(self) -> Self:
        self.sender.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def deliver(self) -> None:
        """End the run, all of it delivered."""
        self.made.finish()
        delivered = self.sender.close(self.made.writer.seq - 1, time.monotonic() + 20)
        self.made.spool.close(delivered=delivered)
        assert delivered and not self.made.spool.folder.exists()


def test_after_an_outage_new_steps_are_seen_at_once_and_old_ones_fill_the_gap(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    sending = Sending(tmp_path / "spool", f"http://127.0.0.1:{port}", layers=500)
    sending.made.steps(8, 2500)
    size, backlog = sending.made.spool.size, sending.made.writer.seq
    assert size > 30 << 20
    with ServerProcess(tmp_path / "server", "--port", str(port)) as server:
        with sending:
            server.await_json("/api/runs", lambda found: found["runs"])
            begun, newest = time.monotonic(), sending.made.step
            server.await_json("/api/runs", lambda found: (found["runs"][0]["last_step"] or 0) >= newest)
            live, arrived = time.monotonic() - begun, sending.sender.delivery.through
            assert arrived < backlog * 0.8, (live, arrived)  # long before the last of the backlog
            while sending.sender.delivery.through < backlog:
                assert time.monotonic() < begun + 60
                time.sleep(0.02)
            rate = size / (time.monotonic() - begun)
            sys.stdout.write(
                f"live after {live:.2f} s, {rate / 1e6:.1f} MB/s, {arrived / backlog:.0%} of the backlog first\n"
            )
            assert sending.made.spool.size < 16 << 20  # acked segments have gone
        sending.deliver()
        last = sending.made.step - 1
        assert stored_steps(server, sending.made.writer, last) == list(range(last + 1))
