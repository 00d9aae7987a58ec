"""A server that kills itself, as kill -9 would, at the n-th time at a boundary: ``killing_server.py BOUNDARY N``."""

from __future__ import annotations

import os
import signal
import sys
from itertools import count

from gradwatch_server import serve
from gradwatch_server.settings import Settings


def main(boundary: str, times: int) -> None:
    counted = count(1)

    def reached(where: str) -> None:
        if where == boundary and next(counted) == times:
            os.kill(os.getpid(), signal.SIGKILL)

    serve.run(Settings(port=0), reached=reached)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
