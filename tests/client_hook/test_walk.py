"""Frames out of damaged files: whatever bytes rot, every whole frame is found and every other is counted."""

from __future__ import annotations

import random
import struct
import sys

from gradwatch import frames
from gradwatch.frames import Frame, Kind
from gradwatch.segment import Rewritten
from gradwatch.walk import NOTHING, Walk

WRITER = "0123456789abcdef" * 2


class Bytes:
    """A file in memory; ``rewrite`` puts others in its place, as letting go of detail does."""

    def __init__(self, data: bytes, first: int, last: int) -> None:
        self.data, self.size, self.first, self.last, self.version = data, len(data), first, last, 0

    def read(self, at: int, most: int, version: int) -> bytes:
        if version != self.version:
            raise Rewritten
        return self.data[at : at + most]

    def rewrite(self, data: bytes) -> None:
        self.data, self.size, self.version = data, len(data), self.version + 1


def frame(seq: int, size: int) -> bytes:
    steps = struct.pack("<2q", 2 * seq, 2 * seq + 1)
    return frames.encode(Kind.STEPS, {"writer": WRITER, "seq": seq, "rows": 2}, [steps, bytes(size)])


def walked(walk: Walk, most: int) -> list[Frame]:
    found: list[Frame] = []
    while (batch := walk.next(most)) != NOTHING:
        some = list(frames.decode_all(batch.data))
        assert (some[0].header["seq"], some[-1].header["seq"]) == (batch.first, batch.last)
        found += some
    return found


def test_whatever_rots_each_seq_comes_once_in_order_and_only_damaged_frames_are_lost() -> None:
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    chance = random.Random(seed)
    for _ in range(150):
        whole = [frame(seq, chance.choice([0, 40, 3000, 40_000])) for seq in range(10, 40)]
        data = bytearray(b"".join(whole))
        ends = [sum(map(len, whole[: count + 1])) for count in range(len(whole))]
        hurt = set()
        for _ in range(chance.randrange(1, 4)):
            at, length = chance.randrange(len(data)), chance.choice([1, 8, 500, 5000])
            for place in range(at, min(at + length, len(data))):
                data[place] ^= chance.randrange(1, 256)
                hurt.add(10 + next(number for number, end in enumerate(ends) if place < end))
        walk = Walk(Bytes(bytes(data), 10, 39), WRITER, ())
        found = walked(walk, chance.choice([100, 4096, 1 << 17]))
        assert [one.header["seq"] for one in found] == list(range(10, 40))
        dropped = {one.header["seq"] for one in found if one.kind is Kind.DROPPED}
        assert dropped <= hurt and walk.damaged == sum(len(whole[seq - 10]) for seq in dropped)
        if not dropped & {10, 39}:
            assert sum(one.header["rows"] for one in found) == 60


def test_seqs_of_the_preamble_are_no_damage() -> None:
    data = b"".join([frame(2, 8), bytes(40), frame(6, 8)])
    found = walked(Walk(Bytes(data, 2, 6), WRITER, {4}), 4096)
    assert [(one.header["seq"], one.kind is Kind.DROPPED) for one in found] == [
        (2, False), (3, True), (5, True), (6, False),
    ]  # fmt: skip


def test_a_long_stretch_of_damage_is_told_in_messages_that_a_server_takes() -> None:
    walk = Walk(Bytes(frame(0, 8) + bytes(800) + frame(20_000, 8), 0, 20_000), WRITER, ())
    seqs: list[int] = []
    while (batch := walk.next(4096)) != NOTHING:
        assert len(batch.data) < 200_000
        seqs += [one.header["seq"] for one in frames.decode_all(batch.data)]
    assert seqs == list(range(20_001))


def test_a_source_that_is_written_anew_is_read_on_where_the_walk_stood() -> None:
    source = Bytes(b"".join(frame(seq, 500) for seq in range(20)), 0, 19)
    walk = Walk(source, WRITER, ())
    before = list(frames.decode_all(walk.next(4000).data))
    assert 3 < len(before) < 15
    source.rewrite(b"".join(frame(seq, 10) for seq in range(20)))
    after = walked(walk, 300)
    assert [one.header["seq"] for one in before + after] == list(range(20))


def test_a_frame_of_a_later_version_is_passed_on_as_it_is() -> None:
    newer = bytearray(frame(1, 8))
    newer[2] = 9
    newer[16:20] = struct.pack("<I", _checksum(newer))
    data = frame(0, 8) + bytes(newer) + frame(2, 8)
    batch = Walk(Bytes(data, 0, 2), WRITER, ()).next(4096)
    assert batch == (data, 0, 2)


def _checksum(data: bytearray) -> int:
    import zlib

    return zlib.crc32(data[20:], zlib.crc32(data[:16]))
