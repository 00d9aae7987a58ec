"""Names chosen by patterns, such as ``layers=["encoder.*", "!*.bias"]``."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


class Globs:
    """Takes a name that matches one of the patterns and none of those behind a "!".

    Only patterns with "!": every other name is taken. ``*`` also spans dots. Raises ValueError, saying what to write,
    unless ``patterns`` is a pattern or several.
    """

    def __init__(self, patterns: str | Iterable[str], argument: str = "layers") -> None:
        listed = [patterns] if isinstance(patterns, str) else list(patterns)
        if not listed or not all(isinstance(pattern, str) and pattern.strip("!") for pattern in listed):
            raise ValueError(f'{argument} must be a pattern or a list of them, such as ["encoder.*", "!*.bias"]')
        self.patterns = listed
        self._wanted = [pattern for pattern in listed if not pattern.startswith("!")]
        self._unwanted = [pattern[1:] for pattern in listed if pattern.startswith("!")]

    def __call__(self, name: str) -> bool:
        wanted = not self._wanted or any(fnmatchcase(name, pattern) for pattern in self._wanted)
        return wanted and not any(fnmatchcase(name, pattern) for pattern in self._unwanted)
