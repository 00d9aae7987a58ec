"""A run's raw steps from a server into a file that is whole or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, Literal

from gradwatch.fetch import ClientError, Fetcher

Format = Literal["parquet", "csv"]
# From server/gradwatch_server/api/export.py: about how many bytes will follow.
_SIZE_HEADER: Final = "gradwatch-estimated-bytes"

Tell = Callable[[int, int], None]
"""Called with the bytes that have come, and about how many there will be."""


def save(fetcher: Fetcher, run: str, path: Path, format: Format, *, force: bool, tell: Tell, **query: Any) -> int:
    """Write an export to ``path``, which is replaced only by ``force``, and only once the new file is whole.

    Gives its size in bytes. Raises ClientError.
    """
    if path.exists() and not force:
        raise ClientError(f"{path} is there already")
    with _whole_file(path, force=force) as file:
        return write(fetcher, run, file, format, tell=tell, **query)


def write(fetcher: Fetcher, run: str, file: IO[bytes], format: Format, *, tell: Tell, **query: Any) -> int:
    """Write an export to an open file as it comes; gives its size in bytes. Raises ClientError and OSError."""
    size = 0
    with fetcher.open(f"api/runs/{run}/export", "*/*", format=format, **query) as answer:
        expected = int(answer.headers.get(_SIZE_HEADER) or 0)
        tell(0, expected)
        for part in answer.parts():
            file.write(part)
            size += len(part)
            tell(size, expected)
    return size


@contextlib.contextmanager
def _whole_file(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if force or not path.exists():
            part.replace(path)
            return
        raise ClientError(f"{path} has come to be there meanwhile")
    except OSError as error:
        raise ClientError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
