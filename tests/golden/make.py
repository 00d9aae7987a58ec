"""Writes the golden frames of the current version: ``python tests/golden/make.py``. Older versions' files stay."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from gradwatch import frames
from gradwatch.frames import Kind

WRITER = "00112233445566778899aabbccddeeff"
SUBNORMAL = 5e-324
MISSING = 0x7FF80000_6D697373


def doubles(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def about(metric: str, columns: list[tuple[str, str, int, bytes]]) -> dict[str, Any]:
    """What the header of sampled columns says."""
    rows = len(columns[0][3]) // 4
    schema = [[name, dtype, width] for name, dtype, width, _ in columns]
    return {"metric": metric, "table": "t", "rows": rows, "columns": schema}


def golden() -> list[dict[str, Any]]:
    """One entry a frame: its kind and header, its columns as [name, dtype, width, bytes in hexadecimal]."""
    nan, infinity = float("nan"), float("inf")
    columns = [
        ("step", "i8", 1, struct.pack("<3q", 0, 1, 2**53 - 1)),
        ("loss", "f8", 1, doubles(1.5, nan, -0.0)),
        ("seconds", "f8", 1, struct.pack("<QQQ", MISSING, 1, 0x7FF0000000000000)),
        ("clipped", "u1", 1, bytes([0, 1, 1])),
        ("grad_norm", "f4", 3, struct.pack("<9f", 0.0, 1.0, infinity, nan, 1e-45, 3e38, -0.0, 2.5, 1e-3)),
        ("absent", "u1", 1, bytes([0b001, 0, 0b110])),
    ]
    schema = [[name, dtype, width] for name, dtype, width, _ in columns]
    samples = [
        ("place", "u4", 1, struct.pack("<3I", 0, 7, 2**32 - 1)),
        ("step", "i8", 1, struct.pack("<3q", 0, 10, 2**53 - 1)),
        ("value", "f4", 1, struct.pack("<3f", 1e-3, infinity, nan)),
    ]
    histogram = [
        ("place", "u4", 1, struct.pack("<2I", 0, 7)),
        ("step", "i8", 1, struct.pack("<2q", 20, 2**53 - 1)),
        ("elements", "i8", 1, struct.pack("<2q", 65_536, 2_148)),
        ("zero", "u4", 1, struct.pack("<2I", 65_536, 2)),
        ("nonfinite", "u4", 1, struct.pack("<2I", 0, 1)),
        ("counts", "u4", 66, struct.pack("<132I", *[0] * 66, *range(66))),
    ]
    line = [
        ("alpha", "f8", 1, doubles(-0.5, 0.0, 64.0)),
        ("loss", "f8", 1, doubles(nan, 2.5, infinity)),
        ("seconds", "f4", 1, struct.pack("<3f", 0.0, 1e-3, 2.5)),
    ]
    probed = {"probe": 3, "what": "line", "part": "points", "step": 9, "rows": 3, "about": {"mode": "eval", "seed": 0}}
    probed["columns"] = [[name, dtype, width] for name, dtype, width, _ in line]
    asked = {"command": "probe_landscape", "plane": "random", "levels": 17, "seed": 2**53 - 1, "id": "c0ffee"}
    headers: list[tuple[Kind, dict[str, Any], list[tuple[str, str, int, bytes]]]] = [
        (Kind.HELLO, {"writer": WRITER, "seq": 0, "project": "p", "run": "r", "name": "größer ✓ 😀"}, []),
        (Kind.LAYERS, {"writer": WRITER, "seq": 1, "table": "t", "base": None, "layers": [["w", [2, 2], 4, 0]]}, []),
        (Kind.STEPS, {"writer": WRITER, "seq": 2, "rows": 3, "columns": schema}, columns),
        (Kind.EVENT, {"writer": WRITER, "seq": 3, "step": 7, "name": "checkpoint", "text": 'a "quoted" text'}, []),
        (Kind.ACK, {"writer": WRITER, "through": 3, "ranges": [[5, 9]], "watched": True, "pace": 0.05}, []),
        (Kind.SAMPLES, {"writer": WRITER, "seq": 4, **about("update_ratio", samples)}, samples),
        (Kind.HISTOGRAM, {"writer": WRITER, "seq": 5, **about("grad_histogram", histogram), "lowest": -48}, histogram),
        (Kind.LANDSCAPE, {"writer": WRITER, "seq": 6, **probed}, line),
        (Kind.CONTROL, {"writer": WRITER, **asked}, []),
    ]
    return [
        {
            "kind": int(kind),
            "header": header,
            "columns": [[name, dtype, width, data.hex()] for name, dtype, width, data in body],
            "frame": frames.encode(kind, header, [data for *_, data in body]).hex(),
        }
        for kind, header, body in headers
    ]


if __name__ == "__main__":
    path = Path(__file__).parent / f"frames_v{frames.VERSION}.json"
    path.write_text(json.dumps(golden(), indent=1, ensure_ascii=False) + "\n")
