"""A sender against servers that are odd."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from gradwatch.sender import Sender
from gradwatch.spool import Spool

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
