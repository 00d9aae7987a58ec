"""The frame: whatever is written is read back bit for bit, whatever is damaged is refused by name."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gradwatch import frames
from gradwatch.frames import Column, FrameError, Kind
from hypothesis import given
from hypothesis import strategies as st

GOLDEN = Path(__file__).parent.parent / "golden"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
headers = st.dictionaries(st.text(max_size=12), json_values, max_size=6)


@given(st.sampled_from(Kind), headers, st.lists(st.binary(max_size=200), max_size=5))
def test_what_is_encoded_is_decoded(kind: Kind, header: dict[str, Any], columns: list[bytes]) -> None:
    data = frames.encode(kind, header, columns)
    assert len(data) % 8 == 0
    frame = frames.decode(data)
    assert (frame.kind, frame.header, frame.size) == (kind, header, len(data))
    schema = [Column(str(place), "u1", len(column)) for place, column in enumerate(columns)]
    assert [bytes(part) for part in frames.split(frame.body, schema, 1).values()] == columns


@given(headers, st.binary(min_size=1, max_size=64), st.data())
def test_any_flipped_bit_is_noticed(header: dict[str, Any], column: bytes, data: st.DataObject) -> None:
    good = frames.encode(Kind.STEPS, header, [column])
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameError):
        frames.decode(bad)


@given(headers, st.binary(max_size=64), st.data())
def test_a_frame_cut_short_is_refused(header: dict[str, Any], column: bytes, data: st.DataObject) -> None:
    good = frames.encode(Kind.STEPS, header, [column])
    with pytest.raises(FrameError) as refusal:
        frames.decode(good[: data.draw(st.integers(0, len(good) - 1))])
    assert refusal.value.code == "short"


def test_frames_follow_each_other_in_one_buffer() -> None:
    several = [frames.encode(Kind.EVENT, {"seq": seq, "pad": "x" * seq}) for seq in range(5)]
    assert [frame.header["seq"] for frame in frames.decode_all(b"".join(several))] == list(range(5))


def resealed(data: bytes, **changed: int) -> bytes:
    """``data`` with prefix fields changed and the checksum made right again."""
    import zlib

    magic, version, kind, head, body, _ = struct.unpack_from("<2sBBIQI", data)
    prefix = struct.pack("<2sBBIQ", magic, changed.get("version", version), changed.get("kind", kind), head, body)
    return prefix + struct.pack("<I", zlib.crc32(data[20:], zlib.crc32(prefix))) + data[20:]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: resealed(data, version=2), "version"),
        (lambda data: resealed(data, version=0), "version"),
        (lambda data: resealed(data, kind=60), "kind"),
        (lambda data: b"XX" + data[2:], "magic"),
        (lambda data: data[:24] + b"#" + data[25:], "checksum"),
        (lambda data: data[:4] + struct.pack("<I", 2**31) + data[8:], "size"),
    ],
)
def test_each_defect_has_its_name(change: Any, code: str) -> None:
    with pytest.raises(FrameError) as refusal:
        frames.decode(change(frames.encode(Kind.EVENT, {"writer": "w", "seq": 1})))
    assert refusal.value.code == code


def test_a_nan_in_a_header_is_refused_on_both_sides() -> None:
    with pytest.raises(FrameError) as refusal:
        frames.encode(Kind.EVENT, {"seq": float("nan")})
    assert refusal.value.code == "header"
    whole = frames.encode(Kind.EVENT, {"seq": 100})
    with pytest.raises(FrameError, match="NaN"):
        frames.decode(resealed(whole.replace(b":100", b":NaN")))


def test_a_frame_beyond_the_limit_is_not_written() -> None:
    with pytest.raises(FrameError) as refusal:
        frames.encode(Kind.STEPS, {}, [bytes(frames.MAX_FRAME)])
    assert refusal.value.code == "size"


@pytest.mark.parametrize("value", [float("nan"), -1, 2**53, True, "7", 1.0, None])
def test_a_count_is_a_whole_number(value: object) -> None:
    with pytest.raises(FrameError, match="seq must be a whole number"):
        frames.check_count("seq", value)


@pytest.mark.parametrize("value", ["x" * 1025, "a\0b", "\ud800", 7, None])
def test_a_name_is_a_short_string(value: object) -> None:
    with pytest.raises(FrameError, match="a name"):
        frames.check_text("a name", value)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("frames_v*.json")), ids=lambda path: path.stem)
def test_every_version_that_ever_landed_is_read(path: Path) -> None:
    for entry in json.loads(path.read_text()):
        frame = frames.decode(bytes.fromhex(entry["frame"]))
        assert (frame.kind, frame.header) == (entry["kind"], entry["header"])
        columns = [Column(name, dtype, width) for name, dtype, width, _ in entry["columns"]]
        parts = frames.split(frame.body, columns, frame.header.get("rows", 0))
        assert {name: bytes(part).hex() for name, part in parts.items()} == {
            name: data for name, _, _, data in entry["columns"]
        }


def test_the_current_version_has_golden_frames() -> None:
    assert (GOLDEN / f"frames_v{frames.VERSION}.json").exists()


def test_frames_load_nothing_heavy() -> None:
    code = "import sys, gradwatch.frames, gradwatch.sync; assert not {'torch', 'fastapi'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_run_id_is_stable() -> None:
    # It stands in bookmarks and in databases: it must never change.
    assert frames.run_id("default", "abc") == "f2d61c20d65f9969"
    assert frames.run_id("demo", "first") != frames.run_id("demof", "irst")
