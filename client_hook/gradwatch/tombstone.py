"""Counted tombstones: what stands in the place of a frame that was let go, so that its seq leaves no hole."""

from __future__ import annotations

import struct

from gradwatch import frames
from gradwatch.frames import Frame, FrameError, Kind

Steps = tuple[int, int] | None


def tombstone(writer: str, seq: int, reason: str, *, rows: int = 0, steps: Steps = None) -> bytes:
    """A frame of kind ``dropped``. ``rows``: how many went; ``steps``: the first and the last of them, where known."""
    first, last = steps or (None, None)
    header = {"writer": writer, "seq": seq, "first_step": first, "last_step": last, "rows": rows, "reason": reason}
    return frames.encode(Kind.DROPPED, header)


def in_place_of(frame: Frame, reason: str) -> bytes:
    """The tombstone of ``frame``, under its seq; its kind joins the reason, because rows of each are counted apart."""
    header = frame.header
    said = f"{reason} ({frame.kind.name.lower()})"
    return tombstone(header["writer"], header["seq"], said, rows=int(header.get("rows", 0)), steps=steps_of(frame))


def steps_of(frame: Frame) -> Steps:
    """First and last step that a frame of the hook's own speaks of; None where it does not say."""
    header = frame.header
    try:
        if "step" in header:
            return header["step"], header["step"]
        if frame.kind is Kind.STEPS:  # the step is the first column of the table that it cites, and it rises
            first, last = (struct.unpack_from("<q", frame.body, 8 * row)[0] for row in (0, header["rows"] - 1))
            return first, last
        parts = frames.split(frame.body, frames.columns_from_json(header["columns"]), header["rows"])
        steps = parts["step"].cast("q")  # both little-endian: the format and every machine that runs torch
        return min(steps), max(steps)
    except (FrameError, KeyError, TypeError, ValueError, struct.error):
        return None
