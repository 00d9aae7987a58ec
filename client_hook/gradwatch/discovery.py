"""Finding the server of this user on this machine, and making sure that it is that one.

``gradwatch serve`` writes its address and a secret into ``GRADWATCH_DIR/server.json``, readable by its user only. A
server is believed when it answers a random challenge with the right code, so that another program that has taken the
port since never gets a frame.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import secrets
import urllib.request
from pathlib import Path

_TIMEOUT = 2  # seconds


def find_server(directory: Path) -> str | None:
    """Address of the server that ``server.json`` in ``directory`` names, if it lives and proves itself."""
    try:
        said = json.loads((directory / "server.json").read_text())
        address, secret = str(said["url"]).rstrip("/"), str(said["secret"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return address if proves_itself(address, secret) else None


def proves_itself(address: str, secret: str) -> bool:
    """Whether the server at ``address`` knows ``secret``."""
    challenge = secrets.token_hex(16)
    # No proxy: the address is one of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/healthz?challenge={challenge}", timeout=_TIMEOUT) as answer:
            proof = json.loads(answer.read(4096))["proof"]
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return False
    expected = hmac.new(secret.encode(), challenge.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(str(proof).encode(), expected.encode())
