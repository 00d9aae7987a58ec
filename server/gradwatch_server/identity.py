"""Who this server is: what it writes into server.json, so that a hook on the same machine knows it again."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def _version() -> str:
    try:
        return version("gradwatch")
    except PackageNotFoundError:
        return "0.0.0"


@dataclass(frozen=True, slots=True)
class Identity:
    """A new one for every start."""

    instance: str = field(default_factory=lambda: secrets.token_hex(8))
    secret: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    version: str = field(default_factory=_version)

    def announce(self, folder: Path, url: str) -> None:
        """Write server.json, readable by its owner only, whole or not at all."""
        temporary = folder / f".server.json.{self.instance}"
        text = json.dumps({"url": url, "instance": self.instance, "secret": self.secret, "pid": os.getpid()})
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        temporary.replace(folder / "server.json")

    def withdraw(self, folder: Path) -> None:
        """Remove server.json, unless another server has put its own there."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if json.loads((folder / "server.json").read_text()).get("instance") == self.instance:
                (folder / "server.json").unlink()
