"""The ingest socket: acks after commits, refusals by name, others unharmed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradwatch import frames
from gradwatch.frames import Kind
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from .served import Served
from .stream import Socket, Writer


def refused(socket: Socket, data: bytes) -> dict[str, Any]:
    """Send ``data``; the refusal that follows."""
    socket.send(data)
    return socket.until(Kind.REFUSE).header


def test_frames_are_acked_once_per_commit_and_a_repeated_hello_tells_where_to_go_on(
    server: Served, writer: Writer
) -> None:
    with server.ingest() as socket:
        hello = writer.hello()
        ack = socket.store(writer, hello)
        assert ack == {"writer": writer.key, "through": 0, "ranges": [], "watched": False, "pace": 1.0}
        socket.store(writer, writer.layer_table())
        held = writer.steps([0])
        socket.send(writer.steps([1]))
        assert socket.until(Kind.ACK).header["ranges"] == [[3, 3]]
    with server.ingest() as socket:
        socket.send(hello)
        ack = socket.until(Kind.ACK).header
        assert (ack["through"], ack["ranges"]) == (1, [[3, 3]])
        socket.store(writer, held)


def test_many_frames_in_one_message_and_one_commit_give_few_acks(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening() + b"".join(writer.steps([n]) for n in range(200)))
        assert server.get(f"/api/runs/{writer.run}")["last_step"] == 199


def _with(data: bytes, **changed: int) -> bytes:
    """The frame with other prefix fields and a checksum that fits again."""
    magic, version, kind, size, body, _ = struct.unpack_from("<2sBBIQI", data)
    version, kind = changed.get("version", version), changed.get("kind", kind)
    prefix = struct.pack("<2sBBIQI", magic, version, kind, size, body, 0)[:16]
    checksum = zlib.crc32(data[20:], zlib.crc32(prefix))
    return prefix + struct.pack("<I", checksum) + data[20:]


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut short": (lambda data: data[:-8], "short"),
    "cut in the prefix": (lambda data: data[:10], "short"),
    "not ours": (lambda data: b"XX" + data[2:], "magic"),
    "a flipped bit": (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "checksum"),
    "from the future": (lambda data: _with(data, version=2), "version"),
    "unknown kind": (lambda data: _with(data, kind=63), "kind"),
    "the server's own kind": (lambda data: _with(data, kind=64), "kind"),
    "a huge length": (lambda data: data[:8] + struct.pack("<Q", 2**60) + data[16:], "size"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_frame_is_refused_by_name_and_its_neighbours_are_kept(
    server: Served, writer: Writer, name: str
) -> None:
    damage, code = DAMAGED[name]
    with server.ingest() as socket:
        socket.store(writer, writer.opening())
        before = writer.steps([0])
        bad = writer.steps([1])
        refusal = refused(socket, before + damage(bad))
        assert refusal["code"] == code and refusal["message"]
        socket.store(writer, bad)
        assert server.get(f"/api/runs/{writer.run}/series?columns=0&names=loss")["step"] == [0, 1]


def wrong_frames(writer: Writer) -> dict[str, tuple[Kind, dict[str, Any], list[bytes], str, str]]:
    """Frames whose checksum is right and whose contents are not: kind, header, columns, code, word in the message."""
    steps = {"table": writer.table, "rows": 1, "without": ["absent"]}
    inline = [["series", "u4", 1], ["step", "i8", 1], ["time", "f8", 1], ["value", "f8", 1]]
    one = [np.array([0], "<u4").tobytes(), np.array([0], "<i8").tobytes(), bytes(8), bytes(8)]
    scalars = {"series": ["x"], "rows": 1, "columns": inline}
    huge = [[f"l{n}", [], 1, 0] for n in range(20_000)]
    table = {"table": "0" * 16, "base": None, "layers": [["a", [1], 1, 0]], "columns": writer.schema()}
    return {
        "unknown table": (Kind.STEPS, {**steps, "table": "nope"}, [], "table", "table"),
        "table is no text": (Kind.STEPS, {**steps, "table": 5}, [], "table", "table"),
        "body too short": (Kind.STEPS, steps, [bytes(8)], "body", "bytes"),
        "rows is a float": (Kind.STEPS, {**steps, "rows": 1.5}, [], "field", "rows"),
        "rows is negative": (Kind.STEPS, {**steps, "rows": -1}, [], "field", "rows"),
        "without step": (Kind.STEPS, {**steps, "without": ["step"]}, [], "field", "without"),
        "wrong hash": (Kind.LAYERS, table, [], "field", "hash"),
        "too many layers": (Kind.LAYERS, {**table, "layers": huge}, [], "field", "degrades"),
        "layer without shape": (Kind.LAYERS, {**table, "layers": [["a", 1, 1, 0]]}, [], "field", "layer"),
        "schema without step": (Kind.LAYERS, {**table, "columns": [["loss", "f8", 1]]}, [], "field", "step"),
        "schema of strings": (Kind.LAYERS, {**table, "columns": [["step", "text", 1]]}, [], "field", "column"),
        "series out of range": (Kind.SCALARS, scalars, [np.array([7], "<u4").tobytes(), *one[1:]], "field", "series"),
        "a name of 1 MB": (Kind.SCALARS, {**scalars, "series": ["x" * 900_000]}, one, "field", "characters"),
        "a name with NUL": (Kind.SCALARS, {**scalars, "series": ["a\0b"]}, one, "field", "NUL"),
        "half a surrogate": (Kind.EVENT, {"step": 0, "time": 0, "name": "\ud800", "text": ""}, [], "field", "stored"),
        "event without step": (Kind.EVENT, {"time": 0, "name": "n", "text": ""}, [], "field", "step"),
        "event in no time": (Kind.EVENT, {"step": 0, "time": "noon", "name": "n"}, [], "field", "time"),
        "finished how": (Kind.FINISH, {"state": "exploded", "time": 0}, [], "field", "state"),
        "dropped what": (Kind.DROPPED, {"rows": None, "reason": ""}, [], "field", "rows"),
    }


def test_wrong_contents_are_refused_by_name_and_nothing_of_them_is_stored(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening())
        for name, (kind, header, columns, code, word) in wrong_frames(writer).items():
            seq = writer.seq
            data = frames.encode(kind, {"writer": writer.key, "seq": seq, **header}, columns)
            refusal = refused(socket, data)
            assert (refusal["code"], refusal["seq"], refusal["writer"]) == (code, seq, writer.key), (name, refusal)
            assert word in refusal["message"], name
        socket.store(writer, writer.steps([0]))
    found = server.get(f"/api/runs/{writer.run}")
    assert found["last_step"] == 0 and len(found["layers"]) == 3
    assert server.get(f"/api/runs/{writer.run}/events")["events"] == []
    assert "x" not in server.get(f"/api/runs/{writer.run}/series")["series"]


@pytest.mark.parametrize("steps", [[3, 2], [4, 4], [-1, 0], [2**53, 2**53 + 1]])
def test_steps_must_increase_within_a_frame_and_be_countable(server: Served, writer: Writer, steps: list[int]) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening())
        refusal = refused(socket, writer.steps(steps))
        assert refusal["code"] == "field" and "step" in refusal["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("writer", "xyz"),
        ("writer", 5),
        ("seq", -1),
        ("seq", True),
        ("seq", 2**53),
        ("seq", 1),
        ("project", ""),
        ("project", "p" * 2000),
        ("run", None),
        ("rank", "zero"),
        ("start_step", 1.5),
        ("tags", "abc"),
        ("total_steps", "many"),
        ("norm_type", -1),
        ("started_at", None),
        ("started_at", 1e300),
        ("group", 7),
        ("control", "yes"),
        ("control", 1),
        ("commands", "stop"),
        ("commands", [1]),
        ("commands", ["stop"] * 65),
    ],
)
def test_a_hello_with_a_wrong_field_is_refused_by_the_fields_name(server: Served, field: str, value: object) -> None:
    said = {"writer": "a" * 32, "seq": 0, **Writer(run="never stored").said, field: value}
    with server.ingest() as socket:
        refusal = refused(socket, frames.encode(Kind.HELLO, said))
    assert refusal["code"] == "field" and f"'{field}'" in refusal["message"]
    assert all(run["name"] != "never stored" for run in server.get("/api/runs?limit=1000")["runs"])


def test_a_nan_where_a_count_belongs(server: Served, writer: Writer) -> None:
    good = writer.hello()
    said = good[20:].replace(b'"rank":0', b'"rank":NaN').rstrip(b"\0")
    said += bytes(-(20 + len(said)) % 8)
    size = len(said.rstrip(b"\0"))
    prefix = struct.pack("<2sBBIQ", b"GW", 1, 1, size, 0)
    with server.ingest() as socket:
        refusal = refused(socket, prefix + struct.pack("<I", zlib.crc32(said, zlib.crc32(prefix))) + said)
    assert refusal["code"] == "header" and "NaN" in refusal["message"]


def test_an_unknown_writer_is_asked_for_its_hello(server: Served, writer: Writer) -> None:
    hello, table = writer.hello(), writer.layer_table()
    steps = writer.steps([0])
    with server.ingest() as socket:
        refusal = refused(socket, steps)
        assert (refusal["code"], refusal["seq"]) == ("hello", 2)
        socket.store(writer, hello + table + steps)


def test_a_conflict_and_a_text_message(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening() + writer.event("one"))
        writer.seq -= 1
        assert refused(socket, writer.event("two"))["code"] == "conflict"
        socket.send("hello?")
        assert socket.until(Kind.REFUSE).header["code"] == "magic"


def test_a_deleted_run_tells_its_sender(server: Served, writer: Writer) -> None:
    import httpx

    with server.ingest() as socket:
        socket.store(writer, writer.opening())
        assert httpx.delete(f"{server.url}/api/runs/{writer.run}").status_code == 204
        assert refused(socket, writer.steps([0]))["code"] == "deleted"


def test_a_message_above_one_mebibyte_closes_the_socket(server: Served) -> None:
    with server.ingest() as socket:
        socket.send(bytes(frames.MAX_FRAME + 1))
        with pytest.raises(ConnectionClosed) as closed:
            socket.next()
        assert closed.value.rcvd and closed.value.rcvd.code == 1009


@pytest.mark.parametrize("path", ["/api/ingest", "/api/live"])
def test_another_subprotocol_is_told_which_ones_there_are(server: Served, path: str) -> None:
    with Socket(server.url, path, subprotocols=[Subprotocol("gradwatch.v9")]) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            socket.next()
        assert closed.value.rcvd and closed.value.rcvd.code == 1002
        assert "gradwatch.v1" in closed.value.rcvd.reason and "gradwatch.v9" in closed.value.rcvd.reason


def test_the_pace_follows_those_who_watch(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening())
        with server.live() as viewer:
            viewer.say(type="subscribe", request=1, run=writer.run)
            ack = socket.until(Kind.ACK).header
            assert (ack["watched"], ack["pace"], ack["through"]) == (True, 0.05, 1)
        ack = socket.until(Kind.ACK).header
        assert (ack["watched"], ack["pace"]) == (False, 1.0)


def test_the_boundaries_are_passed_in_order(server: Served, writer: Writer, tmp_path_factory: Any) -> None:
    seen: list[str] = []
    with Served(tmp_path_factory.mktemp("boundaries"), seen.append) as served, served.ingest() as socket:
        socket.store(writer, writer.hello())
        assert seen[:3] == ["received", "before_commit", "after_commit"]
        served.wait("/healthz", lambda _: "before_rules" in seen)
