"""From the training to the server's answers and the browser, on both databases: every number is the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradwatch
import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from playwright.sync_api import Page
from torch import Tensor, nn

from tests.postgresql import PostgreSQL
from tests.processes import ServerProcess
from tests.server.stream import Socket, Writer

STEPS, THRESHOLD = 200, 0.4


def train(clip_by_us: bool) -> tuple[list[Tensor], list[list[float]], list[float], list[float]]:
    """Parameters at the end; per step: each layer's norm by NumPy in float64, the returned total norm, the loss."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    monitor = gradwatch.watch(model, optimizer, clip=THRESHOLD, project="exact") if clip_by_us else None
    norms, totals, losses = [], [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        inputs = torch.randn(32, 6)
        loss = (model(inputs) - inputs[:, :3].sin()).square().mean()
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norms.append([float(np.linalg.norm(gradient.double().numpy())) for gradient in gradients])
        if monitor is not None:
            totals.append(monitor.clip(loss).item())
        else:
            totals.append(torch.nn.utils.clip_grad_norm_(model.parameters(), THRESHOLD).item())
        losses.append(loss.item())
        optimizer.step()
    if monitor is not None:
        monitor.finish()
    return [parameter.detach() for parameter in model.parameters()], norms, totals, losses


@pytest.fixture(params=["sqlite", "postgresql"])
def database_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server on a database of either kind."""
    said = {}
    if request.param == "postgresql":
        postgresql: PostgreSQL = request.getfixturevalue("postgresql")
        said["GRADWATCH_DATABASE"] = postgresql.new_database()
    with ServerProcess(tmp_path, **said) as server:
        yield server


@pytest.mark.timeout(120)
def test_what_is_stored_is_what_was_computed(
    database_server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = database_server
    for name, value in {"SERVER": server.url, "DIR": str(tmp_path), "MODE": "online"}.items():
        monkeypatch.setenv(f"GRADWATCH_{name}", value)
    ours, norms, totals, losses = train(clip_by_us=True)
    theirs, _, expected_totals, _ = train(clip_by_us=False)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    (run,) = server.await_json("/api/runs", lambda found: found["runs"] and found["runs"][0]["state"] == "finished")[
        "runs"
    ]
    stored = server.raw_series(run["id"], ["total_norm", "loss", "clipped", "threshold"])
    layers = server.get(f"/api/runs/{run['id']}/layers?columns=1000", headers={"Accept": "application/json"})
    assert stored["step"] == list(range(STEPS))
    as_bits = [np.array(series, np.float32).tobytes() for series in (stored["total_norm"], totals, expected_totals)]
    assert as_bits[0] == as_bits[1] == as_bits[2]
    assert stored["loss"] == losses
    assert stored["clipped"] == [float(total > THRESHOLD) for total in totals] and 0 < sum(stored["clipped"]) < STEPS
    assert layers["layers"] == ["0.weight", "0.bias", "2.weight", "2.bias", "3.weight", "3.bias"]
    assert [column["first"] for column in layers["columns"]] == list(range(STEPS))
    for field in ("min", "max", "mean"):
        np.testing.assert_allclose(np.array(layers[field], float), norms, rtol=1e-6)


# What JSON, a database or a float32 on the way would change: signs of zero, subnormals, the ends of the range.
ODD = [-0.0, 0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1e308, -1.7976931348623157e308, 0.1, 3.3895313892515355e38]
ODD += [float("nan"), float("inf"), float("-inf"), 1.0000000000000002]
ODD_NORMS = np.array([-0.0, 0.0, 1e-45, 1.1754944e-38, 3.4028235e38, 0.1, np.nan, np.inf, -np.inf], "<f4")
# The page's own modules read a snapshot and a raw answer; doubles come back as their 64 bits in hexadecimal.
READ_IN_BROWSER = """async ([run, steps]) => {
  const { decode, Kind, SUBPROTOCOL } = await import("/static/scripts/frames.js");
  const { tableFromFrame } = await import("/static/scripts/series.js");
  const bits = (array) => Array.from(new BigUint64Array(Float64Array.from(array).buffer), (n) => n.toString(16));
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/api/live", SUBPROTOCOL);
  socket.binaryType = "arraybuffer";
  const table = await new Promise((resolve) => {
    socket.onopen = () => socket.send(JSON.stringify({ type: "subscribe", request: 1, run, columns: steps }));
    socket.onmessage = ({ data }) => {
      const frame = decode(new Uint8Array(data));
      if (frame.kind === Kind.SNAPSHOT) resolve(tableFromFrame(frame));
    };
  });
  socket.close();
  const asked = await fetch(`/api/runs/${run}/series?columns=0&names=loss,total_norm,odd`);
  const { series } = await asked.json();
  const raw = (name) => bits(series[name].value.map(Number));
  const live = (name) => bits(table.series.get(name).last);
  return Object.fromEntries(["loss", "total_norm", "odd"].map((name) => [name, [live(name), raw(name)]]));
}"""


def stream_odd_values(server: ServerProcess) -> tuple[str, dict[str, np.ndarray[Any, np.dtype[np.float64]]]]:
    """A run of a few odd steps: its id, and what each series must be."""
    steps = np.arange(len(ODD) * len(ODD_NORMS))
    loss, totals = np.resize(ODD, len(steps)), np.resize(ODD_NORMS, len(steps))
    writer = Writer(["a", "b"], run="odd")
    with Socket(server.url, "/api/ingest") as socket:
        socket.store(writer, writer.opening())
        socket.store(writer, writer.steps(steps, loss=loss, total_norm=totals))
        socket.store(writer, writer.scalars([("odd", step, value) for step, value in enumerate(loss[::-1].tolist())]))
        socket.store(writer, writer.finish())
    return writer.run, {"loss": loss, "total_norm": totals.astype("<f8"), "odd": loss[::-1]}


def as_bits(values: ArrayLike) -> list[str]:
    """Each double as its 64 bits; a NaN's payload is nobody's promise, so all have the usual one."""
    exact = np.array(values, "<f8")
    exact[np.isnan(exact)] = np.nan
    return [f"{bits:x}" for bits in exact.view("<u8").tolist()]


def test_odd_values_come_back_over_rest(database_server: ServerProcess) -> None:
    run, expected = stream_odd_values(database_server)
    found = database_server.raw_series(run, list(expected))
    for name, values in expected.items():
        assert as_bits(found[name]) == as_bits(values), name


def test_odd_values_come_back_in_the_browser(database_server: ServerProcess, page: Page) -> None:
    run, expected = stream_odd_values(database_server)
    page.goto(database_server.url)
    found = page.evaluate(READ_IN_BROWSER, [run, len(expected["loss"])])
    for name, values in expected.items():
        live, raw = found[name]
        assert raw == as_bits(values), name
        assert live == as_bits(values), name
