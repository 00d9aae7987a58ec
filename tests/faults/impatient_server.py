"""``gradwatch serve`` that gives up a silent socket after two seconds in place of forty."""

from __future__ import annotations

from typing import Any

from gradwatch_server import serve
from gradwatch_server.settings import Settings

_config = serve._config


def _impatient(app: Any) -> Any:
    config = _config(app)
    config.ws_ping_interval = config.ws_ping_timeout = 1.0
    return config


if __name__ == "__main__":
    serve._config = _impatient
    serve.run(Settings(port=0))
