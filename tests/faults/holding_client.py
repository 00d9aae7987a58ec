"""A client without torch that keeps the interpreter to itself: ``holding_client.py SPOOL SERVER SECONDS``.

It sends steps, holds the interpreter for SECONDS in a C call, goes on for 3 s and ends. On its output: seconds from the
release until a step that was made after it had been acked.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

from gradwatch.sender import Sender

from tests.spool_writer import SpoolWriter


def main(spool: Path, server: str, seconds: int) -> None:
    made = SpoolWriter(spool, run="holding")
    sender = Sender(
        made.spool, find=lambda: server, token=None, on_server=lambda url: None, last_step=lambda: made.step
    )
    sender.start()

    def go_on(until: float) -> None:
        while time.monotonic() < until:
            made.steps(1)
            sender.notify(urgent=True)
            time.sleep(0.01)

    go_on(time.monotonic() + 2)
    assert sender.delivery.through > 10
    ctypes.PyDLL(None).sleep(seconds)  # a PyDLL keeps the interpreter, as many a native library does
    released = time.monotonic()
    wanted = made.writer.seq
    while sender.delivery.through < wanted:
        go_on(time.monotonic() + 0.02)
        assert time.monotonic() < released + 30
    sys.stdout.write(f"{time.monotonic() - released}\n")
    sys.stdout.flush()
    go_on(time.monotonic() + 0.5)
    made.finish()
    delivered = sender.close(made.writer.seq - 1, time.monotonic() + 10)
    made.spool.close(delivered=delivered)
    assert delivered
    sys.stdout.write(f"{made.step}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
