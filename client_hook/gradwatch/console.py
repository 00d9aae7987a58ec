"""The few lines that gradwatch prints: to standard error, once each, never an exception."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Print one line. A closed or odd standard error must never reach the training."""
    try:
        sys.stderr.write(f"gradwatch: {line}\n")
        sys.stderr.flush()
    except Exception:
        return
