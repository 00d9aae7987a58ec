"""SIGTERM: the server ends soon, whoever is connected; nothing acked is lost, and all come back to the next one."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from gradwatch.frames import Kind
from websockets.exceptions import ConnectionClosed

from tests.faults.forked import ForkedServer
from tests.faults.sessions import session
from tests.faults.watching import Stalled, Viewers
from tests.server.stream import Socket, Writer

INGEST, HEALTHY, STALLED, CLIENTS = 60, 120, 20, 3
EXIT_SECONDS = 10.0
RESTART = 1012  # the close code of a service that is started anew


@pytest.mark.timeout(240)
def test_two_hundred_sockets(tmp_path: Path) -> None:
    with ExitStack() as stack, session(tmp_path, "", "SIGTERM") as opened:
        server = stack.enter_context(opened.server())
        writers = [Writer(run=f"acked {number}") for number in range(INGEST)]
        sockets = [stack.enter_context(Socket(server.url, "/api/ingest")) for _ in writers]
        for writer, socket in zip(writers, sockets, strict=True):
            socket.store(writer, writer.opening() + writer.steps(range(64), loss=np.arange(64) / 7))
        names = [f"client{number}" for number in range(CLIENTS)]
        clients = [stack.enter_context(opened.client(name)) for name in names]
        viewers = stack.enter_context(Viewers(server.url, writers[0].run, HEALTHY))
        for number in range(STALLED):
            stack.enter_context(Stalled(server.url, writers[0].run, "/api/live" if number % 2 else "/api/ingest"))
        acked = _stream_until_the_end(server, writers, sockets)
        codes = [code for code in viewers.codes if code == RESTART]
        assert len(codes) == HEALTHY, viewers.codes
        with opened.server() as later:
            for writer in writers:
                found = later.raw_series(writer.run, ["loss"])
                assert found["loss"] == [step / 7 for step in found["step"]]
                assert found["step"] == list(range(len(found["step"]))) and len(found["step"]) >= acked[writer.key]
            for name, client in zip(names, clients, strict=True):
                opened.stop(client, name)
                opened.truth(name).check(later)
        opened.check_database()


def _stream_until_the_end(server: ForkedServer, writers: list[Writer], sockets: list[Socket]) -> dict[str, int]:
    """Have every writer send a hundred steps more and end the server meanwhile; the steps acked of each writer."""
    for step in range(64, 164):
        for writer, socket in zip(writers, sockets, strict=True):
            socket.send(writer.steps([step], loss=step / 7))
    begun = time.monotonic()
    assert server.end() == 0, server.output
    seconds = time.monotonic() - begun
    sys.stdout.write(f"ended {seconds:.1f} s after SIGTERM\n")
    assert seconds < EXIT_SECONDS
    assert "Traceback" not in server.output, server.output[-3000:]
    acked = {}
    for writer, socket in zip(writers, sockets, strict=True):
        acked[writer.key] = 64
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                frame = socket.next(5)
                assert frame.kind is Kind.ACK
                acked[writer.key] = 64 + max(0, int(frame.header["through"]) - 2)
        assert closed.value.rcvd and closed.value.rcvd.code == RESTART
    return acked
