"""What the hook can be told by argument or environment, with the reason for each default."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast, get_args
from urllib.parse import urlsplit

Mode = Literal["online", "offline", "disabled"]

SPOOL_CAP: Final = 1 << 30  # bytes a run may keep on disk while no server takes them
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class Settings:
    """Arguments of ``watch`` win over the environment, the environment over the defaults."""

    directory: Path
    """Home of the spool, the database and ``server.json`` (GRADWATCH_DIR)."""
    server: str | None
    """Address of the server; None: the one that ``server.json`` names (GRADWATCH_SERVER)."""
    token: str | None
    """Sent as a bearer token, never written anywhere (GRADWATCH_TOKEN)."""
    mode: Mode
    """online; offline: spool only; disabled: clip, record nothing, start nothing (GRADWATCH_MODE)."""
    project: str
    run: str | None
    """Identity of the run; a second process with the same one opens the next attempt (GRADWATCH_RUN)."""
    group: str | None
    every_rank: bool = False
    """Every rank of a distributed training streams, not the first alone (GRADWATCH_RANKS=all)."""
    spool_cap: int = SPOOL_CAP
    """Bytes a run may keep on disk; beyond it its oldest detail goes first, counted (GRADWATCH_SPOOL_CAP)."""

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    @classmethod
    def gather(
        cls,
        *,
        server: str | None = None,
        mode: str | None = None,
        project: str | None = None,
        group: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """Settings from arguments and ``environment`` (default: the process's). Raises ValueError on a wrong one."""
        said = os.environ if environment is None else environment
        return cls(
            directory=home(said),
            server=_address(server or said.get("GRADWATCH_SERVER") or None),
            token=said.get("GRADWATCH_TOKEN") or None,
            mode=_mode(mode or said.get("GRADWATCH_MODE") or "online"),
            project=project or said.get("GRADWATCH_PROJECT") or "default",
            run=said.get("GRADWATCH_RUN") or None,
            group=group or said.get("GRADWATCH_GROUP") or None,
            every_rank=_every_rank(said.get("GRADWATCH_RANKS") or "first"),
            spool_cap=_bytes(said.get("GRADWATCH_SPOOL_CAP") or "1G"),
        )


def home(environment: Mapping[str, str] | None = None) -> Path:
    """GRADWATCH_DIR, by default ``~/.gradwatch``."""
    said = os.environ if environment is None else environment
    try:
        return Path(said.get("GRADWATCH_DIR") or "~/.gradwatch").expanduser()
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / "gradwatch"


def _mode(text: str) -> Mode:
    if text not in get_args(Mode):
        raise ValueError(f"mode (or GRADWATCH_MODE) must be online, offline or disabled, not {text!r}")
    return cast(Mode, text)


def _every_rank(text: str) -> bool:
    if text not in ("first", "all"):
        raise ValueError(f"GRADWATCH_RANKS must be first or all, not {text!r}")
    return text == "all"


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", text.strip().upper().replace("IB", ""))
    if match is None or int(match[1]) == 0:
        raise ValueError(f"GRADWATCH_SPOOL_CAP must be a size such as 500M or 2G, not {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def _parses(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _address(text: str | None) -> str | None:
    if text is not None and not (text.startswith(("http://", "https://")) and _parses(text)):
        raise ValueError(f"server (or GRADWATCH_SERVER) must be an address like http://host:7531, not {text!r}")
    return text.rstrip("/") if text else None
