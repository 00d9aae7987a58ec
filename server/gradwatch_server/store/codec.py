"""Tables of numbers as few bytes, lossless: differences of their bit patterns, bit-shuffled, under LZ4 or zstd.

Norms are noise in all but their leading bits, so what can be saved lies in those: within a series the patterns are
taken relative to a typical one ("centred"), or to the one before ("steps", times), and the planes of equal bits go.
Measured on norms of a transformer, 64 layers x 256 steps: 2.86 bytes a value, 3.01 without the differences.
"""

from __future__ import annotations

import struct
from typing import Any, Final, Literal

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

Table = NDArray[Any]
Relative = Literal["plain", "centred", "successive"]

_HEAD: Final = struct.Struct("<BBxxII")  # dtype, relative to what, rows, columns
_DTYPES: Final = tuple(np.dtype(name) for name in ("u1", "<u4", "<i8", "<f4", "<f8"))
_RELATIVE: Final[tuple[Relative, ...]] = ("plain", "centred", "successive")
# Once the common bits are gone, LZ4 leaves 0.4 percent more than zstd and takes less than half its time. Of zstd
# level 1 is no faster than 2, and 6 takes three times as long for one percent.
_METHODS: Final[dict[Relative, tuple[bytes, int]]] = {
    "plain": (b"zstd", 2),
    "centred": (b"lz4", 5),
    "successive": (b"zstd", 2),
}
_SAMPLES: Final = 8  # of a row, that make its typical pattern


def encode(values: Table, relative: Relative = "plain") -> bytes:
    """A table of rows x columns of one of the types u1, u4, i8, f4, f8 as bytes. Similar numbers belong in one row."""
    values = np.ascontiguousarray(values)
    rows, columns = values.shape
    head = _HEAD.pack(_DTYPES.index(values.dtype), _RELATIVE.index(relative), rows, columns)
    if not values.size:
        return head
    centre = b""
    if relative != "plain":
        bits = values.view(_bits_of(values.dtype))
        if relative == "centred":
            typical = _typical(bits)
            centre = typical.tobytes()
            bits = bits - typical[:, None]
        else:
            bits = np.diff(bits, axis=1, prepend=bits.dtype.type(0))
        values = _folded(bits)
    return head + centre + _compress(values, relative)


def decode(data: bytes | memoryview) -> Table:
    """The table of ``encode``, bit by bit; its memory is its own."""
    kind, relative, rows, columns = _HEAD.unpack_from(data)
    dtype, at = _DTYPES[kind], _HEAD.size
    if not rows * columns:
        return np.empty((rows, columns), dtype)
    bits = np.empty((rows, columns), dtype if relative == 0 else _bits_of(dtype))
    view = memoryview(data)
    if relative == _RELATIVE.index("centred"):
        typical = np.frombuffer(view, bits.dtype, rows, at)
        at += typical.nbytes
    blosc.decompress(view[at:], bits)
    if relative == 0:
        return bits
    bits = _unfolded(bits)
    if relative == _RELATIVE.index("centred"):
        bits += typical[:, None]
    else:
        np.cumsum(bits, axis=1, out=bits)
    return bits.view(dtype)


def _compress(values: Table, relative: Relative) -> bytes:
    method, level = _METHODS[relative]
    found: bytes = blosc.compress(values, method, level, blosc.BITSHUFFLE)
    return found


def _bits_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"<i{dtype.itemsize}")


def _typical(bits: Table) -> Table:
    some = bits[:, :: -(-bits.shape[1] // _SAMPLES)]
    # Shares before the sum, which could overflow; any pattern would do, so that what is cut off does not matter.
    typical: Table = (some // some.shape[1]).sum(axis=1, dtype=bits.dtype)
    return typical


def _folded(bits: Table) -> Table:
    """Small numbers of either sign to small numbers: 0, -1, 1, -2 to 0, 1, 2, 3."""
    signs = bits >> (bits.itemsize * 8 - 1)
    bits <<= 1
    bits ^= signs
    return bits


def _unfolded(bits: Table) -> Table:
    unsigned = bits.view(f"<u{bits.itemsize}")
    signs = -(bits & 1)
    unsigned >>= 1
    bits ^= signs
    return bits
