"""What ranks write to each other of commands, in the store by which torch.distributed found its processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

_CLOSED: Final = "closed"  # in the place of a command: there will be no more


class Store(Protocol):
    """What of torch's stores is needed; ``compare_set`` is atomic, and from "" writes only what is not there yet."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...
    def compare_set(self, key: str, expected: str, desired: str) -> bytes: ...
    def delete_key(self, key: str) -> bool: ...


class Closed(Exception):
    """The first rank takes no more commands."""


class Ledger:
    """One rank's view. ``channel``: whose commands; commands are numbered from 0. Nothing here waits for a key.

    Do not keep it longer than a look: it holds the store. Whatever the store raises goes through.
    """

    def __init__(self, store: Store, channel: str, rank: int, ranks: int) -> None:
        self._store, self._channel, self._rank, self._ranks = store, channel, rank, ranks

    def listen(self) -> None:
        self._store.set(self._key("listens", self._rank), "1")

    def leave(self) -> None:
        self._store.delete_key(self._key("listens", self._rank))

    def all_listen(self) -> bool:
        return self._store.check([self._key("listens", rank) for rank in range(self._ranks)])

    def missing(self) -> list[int]:
        """The ranks that do not listen; asks for each on its own."""
        return [rank for rank in range(self._ranks) if not self._store.check([self._key("listens", rank)])]

    def write(self, number: int, command: Mapping[str, Any]) -> None:
        self._store.set(self._key(number, "asked"), json.dumps(command))

    def close(self, number: int) -> None:
        """There is no such command, and none after it."""
        self._store.set(self._key(number, "asked"), _CLOSED)

    def command(self, number: int) -> Mapping[str, Any] | None:
        """The command, None while there is none. Raises Closed."""
        key = self._key(number, "asked")
        if not self._store.check([key]):
            return None
        said = self._store.get(key).decode()
        if said == _CLOSED:
            raise Closed
        command: Mapping[str, Any] = json.loads(said)
        return command

    def promise(self, number: int, step: int) -> None:
        self._store.set(self._key(number, "promise", self._rank), str(step))

    def promises(self, number: int) -> list[int]:
        """Every rank's; none while one is missing."""
        keys = [self._key(number, "promise", rank) for rank in range(self._ranks)]
        return [int(self._store.get(key)) for key in keys] if self._store.check(keys) else []

    def settled(self, number: int) -> str:
        """What was settled; nothing while it is open."""
        key = self._key(number, "settled")
        return self._store.get(key).decode() if self._store.check([key]) else ""

    def settle(self, number: int, said: str) -> str:
        """Settle it, unless somebody has; what is settled then."""
        return self._store.compare_set(self._key(number, "settled"), "", said).decode()

    def _key(self, *parts: object) -> str:
        return "/".join(("gradwatch", self._channel, *map(str, parts)))
