"""The frame: the one format that is spooled, sent, stored and decoded by the browser.

Layout, little-endian, 8-aligned, at most 1 MiB in all::

    "GW" | version u8 | kind u8 | header length u32 | body length u64 | crc32 u32 | JSON header | pad | columns

The checksum covers every byte but its own four. Floating-point numbers of a training travel in columns only, never in
the JSON header, so that NaN, infinities, -0 and subnormals survive. This module and its twin ``frames.js`` are the only
writers and readers of the format; it needs nothing but the standard library, because the server imports it too.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NoReturn

VERSION: Final = 1
SUBPROTOCOL: Final = "gradwatch.v1"
MAX_FRAME: Final = 1 << 20  # bytes, prefix and padding included
MAX_LAYERS: Final = 16_384  # above it the hook records modules and scalars only
MAX_NAME: Final = 1_024  # characters of a name of a run, layer, series or event
MAX_COUNT: Final = 2**53 - 1  # what a browser still counts exactly
# The one NaN of an f8 column that means "nobody gave a value"; every other NaN came out of the training.
MISSING_BITS: Final = 0x7FF80000_6D697373

MAGIC: Final = b"GW"
_PREFIX: Final = struct.Struct("<2sBBIQI")
_CHECKSUM_AT: Final = _PREFIX.size - 4
PREFIX_SIZE: Final = _PREFIX.size

ITEM_SIZES: Final[Mapping[str, int]] = {"u1": 1, "u4": 4, "i8": 8, "f4": 4, "f8": 8}

Buffer = bytes | bytearray | memoryview


class Kind(IntEnum):
    """What a frame says; from 64 on: what the server answers."""

    HELLO = 1
    LAYERS = 2
    STEPS = 3
    SCALARS = 4
    HISTOGRAM = 5
    LANDSCAPE = 6
    EVENT = 7
    DROPPED = 8
    FINISH = 9
    HEARTBEAT = 10
    SAMPLES = 11
    ACK = 64
    CONTROL = 65
    REFUSE = 66
    SNAPSHOT = 67
    DELTA = 68
    NOTICE = 69


class FrameError(ValueError):
    """A frame that cannot be accepted. ``code`` is stable and named in the ``refuse`` frame."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a frame's body: ``rows x width`` items of ``dtype`` (a key of ``ITEM_SIZES``)."""

    name: str
    dtype: str
    width: int = 1

    def as_json(self) -> list[Any]:
        return [self.name, self.dtype, self.width]


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame; ``body`` is a view into the received bytes, not a copy."""

    kind: Kind
    header: dict[str, Any]
    body: memoryview
    checksum: int
    size: int
    version: int = VERSION


def padded(size: int) -> int:
    """``size`` rounded up to the next multiple of 8 bytes."""
    return (size + 7) & ~7


def encode(kind: Kind, header: Mapping[str, Any], columns: Sequence[Buffer] = ()) -> bytes:
    """One frame. ``columns`` are the raw bytes of each column in schema order.

    Raises FrameError (code ``size`` or ``header``) when the frame would exceed 1 MiB or the header holds a NaN.
    """
    try:
        text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise FrameError("header", f"the header cannot be written as JSON: {error}") from error
    head = text + bytes(padded(PREFIX_SIZE + len(text)) - PREFIX_SIZE - len(text))
    body_size = sum(padded(len(column)) for column in columns)
    total = PREFIX_SIZE + len(head) + body_size
    if total > MAX_FRAME:
        raise FrameError("size", f"a frame of {total} bytes exceeds the limit of {MAX_FRAME}")
    prefix = _PREFIX.pack(MAGIC, VERSION, kind, len(text), body_size, 0)[:_CHECKSUM_AT]
    parts: list[Buffer] = [head]
    for column in columns:
        parts += [column, bytes(-len(column) % 8)]
    payload = b"".join(parts)
    checksum = zlib.crc32(payload, zlib.crc32(prefix))
    return b"".join((prefix, struct.pack("<I", checksum), payload))


def frame_size(data: Buffer) -> int:
    """The length in bytes of the frame that begins ``data``, from its prefix alone.

    Raises FrameError (``short``, ``magic`` or ``size``).
    """
    if len(data) < PREFIX_SIZE:
        raise FrameError("short", f"a frame of {len(data)} bytes is cut short: its prefix alone takes {PREFIX_SIZE}")
    magic, _, _, header_size, body_size, _ = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise FrameError("magic", 'this is not a gradwatch frame: it does not begin with "GW"')
    size = padded(PREFIX_SIZE + header_size) + int(body_size)
    if size > MAX_FRAME or body_size % 8:
        raise FrameError("size", f"a frame of {size} bytes is not a multiple of 8 up to {MAX_FRAME}")
    return size


def decode(data: Buffer) -> Frame:
    """The frame that begins ``data``; what follows it is left alone.

    Raises FrameError with one of the codes ``short``, ``magic``, ``size``, ``checksum``, ``version``, ``kind``,
    ``header``. The checksum is looked at first, so that a version or kind is only believed when the bytes are whole.
    """
    size = frame_size(data)
    if len(data) < size:
        raise FrameError("short", f"the frame says {size} bytes and {len(data)} came: it was cut short")
    view = memoryview(data)[:size].toreadonly()
    _, version, kind, header_size, body_size, checksum = _PREFIX.unpack_from(view)
    if zlib.crc32(view[PREFIX_SIZE:], zlib.crc32(view[:_CHECKSUM_AT])) != checksum:
        raise FrameError("checksum", "the frame's bytes do not match its checksum: it was damaged on the way")
    if not 1 <= version <= VERSION:
        raise FrameError(
            "version", f"frame version {version} is unknown here (this side reads 1 to {VERSION}): upgrade gradwatch"
        )
    header = _parse_header(view[PREFIX_SIZE : PREFIX_SIZE + header_size])
    try:
        known = Kind(kind)
    except ValueError as error:
        raise FrameError("kind", f"frame kind {kind} is unknown here: upgrade gradwatch") from error
    return Frame(known, header, view[size - body_size :], checksum, size, version)


def is_whole(data: Buffer) -> bool:
    """Whether the frame that begins ``data`` is all there and matches its checksum, whatever it says."""
    try:
        size = frame_size(data)
    except FrameError:
        return False
    if len(data) < size:
        return False
    view = memoryview(data)[:size]
    checksum: int = _PREFIX.unpack_from(view)[5]
    return zlib.crc32(view[PREFIX_SIZE:], zlib.crc32(view[:_CHECKSUM_AT])) == checksum


def seq_of(data: Buffer) -> int | None:
    """The seq of the whole frame that begins ``data``, of any version and kind; None where its header has none."""
    header_size = _PREFIX.unpack_from(data)[3]
    try:
        seq = _parse_header(memoryview(data)[PREFIX_SIZE : PREFIX_SIZE + header_size]).get("seq")
    except FrameError:
        return None
    return seq if isinstance(seq, int) and not isinstance(seq, bool) else None


def decode_all(data: Buffer) -> Iterator[Frame]:
    """Every frame in ``data``, which must hold whole frames one after the other."""
    view = memoryview(data)
    while len(view):
        frame = decode(view)
        yield frame
        view = view[frame.size :]


def split(body: Buffer, columns: Sequence[Column], rows: int) -> dict[str, memoryview]:
    """The body cut into its columns, each a view of ``rows x width`` items.

    Raises FrameError (``body``) when the columns do not fill the body exactly.
    """
    view, parts, at = memoryview(body), {}, 0
    for column in columns:
        size = rows * column.width * ITEM_SIZES[column.dtype]
        parts[column.name] = view[at : at + size]
        at += padded(size)
    if at != len(view):
        raise FrameError("body", f"the columns take {at} bytes and the body has {len(view)}")
    return parts


def columns_from_json(items: Any) -> list[Column]:
    """A column schema as it stands in a header: ``[[name, dtype, width], ...]``. Raises FrameError (``field``)."""
    if not isinstance(items, list) or len(items) > MAX_LAYERS:
        raise FrameError("field", "'columns' must be a list of [name, dtype, width]")
    columns = []
    for item in items:
        if not (isinstance(item, list) and len(item) == 3 and isinstance(item[0], str) and item[1] in ITEM_SIZES):
            raise FrameError("field", f"{str(item)[:80]} is no column: write [name, dtype, width]")
        check_text("a column's name", item[0])
        columns.append(Column(item[0], item[1], check_count("a column's width", item[2])))
    return columns


def check_count(what: str, value: object) -> int:
    """``value`` if it is a whole number from 0 to 2**53 - 1, else FrameError (``field``) that names ``what``."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise FrameError("field", f"{what} must be a whole number from 0 to 2**53 - 1, not {str(value)[:40]!r}")
    return value


def check_text(what: str, value: object, limit: int = MAX_NAME) -> str:
    """``value`` if it is a string of at most ``limit`` characters, else FrameError (``field``) that names ``what``."""
    if not isinstance(value, str):
        raise FrameError("field", f"{what} must be a string, not {type(value).__name__}")
    if len(value) > limit:
        raise FrameError("field", f"{what} has {len(value)} characters; at most {limit} are allowed")
    if "\x00" in value or not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise FrameError("field", f"{what} holds a character that cannot be stored (NUL or half a surrogate pair)")
    return value


def storable_text(text: str, limit: int = MAX_NAME) -> str:
    """``text`` as ``check_text`` takes it: cut to ``limit``, with what cannot be stored replaced."""
    return text[:limit].encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def table_hash(base: str | None, layers: Sequence[Any], columns: Sequence[Any]) -> str:
    """The name by which step frames cite a layer table: a hash over this part and the one it extends (``base``)."""
    text = json.dumps([base, layers, columns], separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def run_id(project: str, run: str) -> str:
    """The id of a run in addresses: the same on both sides, so that the hook can print it before any server answers."""
    return hashlib.blake2b(f"{project}\0{run}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _parse_header(text: memoryview) -> dict[str, Any]:
    try:
        header = json.loads(bytes(text), parse_constant=_refuse_constant)
    except FrameError:
        raise
    except (ValueError, RecursionError) as error:
        raise FrameError("header", "the frame's header is not valid JSON") from error
    if not isinstance(header, dict):
        raise FrameError("header", "the frame's header must be a JSON object")
    return header


def _refuse_constant(name: str) -> NoReturn:
    raise FrameError("header", f"the header holds {name}; numbers from training belong into columns")
