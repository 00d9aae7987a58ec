"""A run read back: every number as it was sent, odd ones, long ones and reduced ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from gradwatch import Client, ClientError
from gradwatch.measurements import LayerColumns, Layers, SeriesColumns
from gradwatch.runs import Run
from pyarrow import parquet

from tests.client_hook.reading import ABSENT, LAYERS, NORMS, ODD, long_norms, send_long_run, send_small_run
from tests.processes import ServerProcess
from tests.server.stream import MISSING, Socket, Writer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("read")) as process:
        yield process


@pytest.fixture(scope="module")
def small(server: ServerProcess) -> Run:
    return Client(server.url).run(send_small_run(server.url).run)


@pytest.fixture(scope="module")
def long(server: ServerProcess) -> Run:
    """40,000 steps of 300 layers: several pages of either kind, each of several frames."""
    return Client(server.url).run(send_long_run(server.url, 40_000, 300).run)


def test_raw_series_have_every_bit(small: Run) -> None:
    found = small.series(["loss", "accuracy"])
    assert found.names == ["loss", "accuracy"] and found.steps.tolist() == [*range(8), 20]
    is_missing = [*(ODD.view(np.uint64) == MISSING.view(np.uint64)), True]
    assert found.present["loss"].tolist() == [not missing for missing in is_missing]
    there = found.present["loss"]
    assert found["loss"][there].tobytes() == np.append(ODD, 0.0)[there].tobytes()
    assert np.isnan(found["loss"][~there]).all()
    assert found["accuracy"][-1] == np.inf and found.present["accuracy"].sum() == 2
    assert found.times[0] == 1e9 and np.isnan(found.times[-1])
    assert small.series("loss", 2, 3)["loss"].tolist() == [np.inf, -np.inf]
    assert "total_norm" in small.series().names
    with pytest.raises(KeyError, match="'los' is not among loss"):
        found["los"]


def test_raw_series_are_read_page_by_page(long: Run) -> None:
    found = long.series("loss", first=5)
    assert len(found) == 39_995 and (found["loss"] == found.steps).all() and found.steps[0] == 5


def test_reduced_series(small: Run, long: Run) -> None:
    found = small.series("loss", columns=8)
    assert isinstance(found, SeriesColumns) and (found.first == found.last // 4 * 4).all()
    loss = found["loss"]
    assert loss.min[:2].tolist() == [1.0, -0.0] and loss.max[:2].tolist() == [1.0, 0.1]
    assert loss.nonfinite.tolist()[:2] == [3, 0] and loss.count.tolist()[:2] == [1, 3]
    assert loss.last[0] == -np.inf and loss.last[1] == 0.1
    whole = long.series("loss", columns=100)
    assert len(whole) <= 100 and whole["loss"].count.sum() == 40_000
    assert (whole["loss"].min == whole.first).all() and (whole["loss"].max[:-1] == whole.last[:-1]).all()


def test_raw_layers_have_every_bit(small: Run) -> None:
    found = small.layers(columns=None, last=3)
    assert isinstance(found, Layers) and found.names == LAYERS and found.values.dtype == np.float32
    assert (found.present == ~ABSENT).all()
    assert found.values[found.present].tobytes() == NORMS[found.present].tobytes()
    assert np.isnan(found.values[~found.present]).all()
    some = small.layers(columns=None, match="encoder.*", first=1, last=2)
    assert some.names == LAYERS[:2] and some.steps.tolist() == [1, 2]
    assert some["encoder.weight"].tobytes() == NORMS[1:3, 0].tobytes()
    nothing = small.layers(columns=None, match="nothing")
    assert nothing.names == [] and nothing.values.shape[1] == 0


def test_raw_layers_are_read_page_by_page(long: Run) -> None:
    found = long.layers(columns=None, first=100, match="layer.1*")
    names = [name for name in long.layer_names if name.startswith("layer.1")]
    assert found.names == names and len(found) == 39_900 and found.present.all()
    places = [int(name.removeprefix("layer.")) for name in names]
    assert (found.values == long_norms(np.arange(100, 40_000), 300)[:, places]).all()


def test_float64_norms_stay_so(server: ServerProcess) -> None:
    writer = Writer(["a"], run="double", name="double")
    with Socket(server.url, "/api/ingest") as socket:
        socket.store(writer, writer.hello() + writer.layer_table(float_type="f8") + writer.steps([0], [[0.1]]))
    found = Client(server.url).run("double").layers(columns=None)
    assert found.values.dtype == np.float64 and found["a"][0] == 0.1


def test_reduced_layers(small: Run, long: Run) -> None:
    found = small.layers(last=3)
    assert isinstance(found, LayerColumns) and found.names == LAYERS
    rows = slice(0, 4)
    assert found.count[rows].tolist() == (np.isfinite(NORMS) & ~ABSENT).astype(int).tolist()
    assert found.nonfinite[rows].sum() == 2 and np.isnan(found.max[1, 0])
    weight = found["encoder.weight"]
    assert weight.max[0] == 1.0 and weight.count.tolist()[:4] == [1, 0, 1, 0]
    whole = long.layers(columns=50, match="layer.2??")
    assert whole.max.shape == (len(whole), 100) and whole.count.sum() == 40_000 * 100
    assert whole["layer.250"].min[0] == np.float32(0.25)


def test_modules_and_sampled_metrics(small: Run) -> None:
    modules = small.layers(by="module", last=0)
    assert modules.names == ["encoder", "step"] and modules["encoder"].max[0] == np.float32(5**0.5)
    weights = small.layers("weight_norm", columns=10)
    assert weights.metric == "weight_norm" and weights.names == LAYERS and weights.count.sum() == 0
    with pytest.raises(ClientError, match="only the grad_norm of layers is recorded at every step"):
        small.layers("weight_norm", columns=None)  # type: ignore[call-overload]


def test_a_run_that_grows_is_read_as_it_is_then(server: ServerProcess) -> None:
    writer = Writer(["a"], run="grows", name="grows")
    with Socket(server.url, "/api/ingest") as socket:
        socket.store(writer, writer.opening() + writer.steps([0]))
        run = Client(server.url).run("grows")
        assert run.layer_names == ["a"]
        writer.layers.append("b")
        socket.store(writer, writer.layer_table() + writer.steps([1]))
        assert run.layers().names == ["a", "b"]
        assert run.layers(columns=None).present.tolist() == [[True, False], [True, True]]


def test_a_run_without_a_step_is_empty(server: ServerProcess) -> None:
    writer = Writer(["a"], run="empty", name="empty")
    with Socket(server.url, "/api/ingest") as socket:
        socket.store(writer, writer.hello())
    run = Client(server.url).run("empty")
    assert len(run.series()) == 0 and len(run.series(columns=10)) == 0
    assert len(run.layers()) == 0 and len(run.layers(columns=None)) == 0 and run.layers().names == []
    assert run.events() == [] and run.alerts() == []


def test_events_and_alerts(server: ServerProcess, small: Run) -> None:
    (event,) = small.events("user")
    assert (event.name, event.text, event.step) == ("checkpoint", "step 5", 5)
    assert event.time == datetime.fromtimestamp(1e9, UTC)
    server.await_json(f"/api/alerts?run={small.id}", lambda found: found["alerts"])
    alert = small.alerts("open")[0]
    assert alert.rule == "nonfinite" and alert.first_step == 1
    assert small.alerts().to_pandas()["rule"].tolist()[0] == "nonfinite"


def test_export(small: Run, tmp_path: Path) -> None:
    path = small.export(tmp_path / "run.parquet", match="encoder.*")
    assert parquet.read_table(path).column("step").to_pylist() == [*range(8), 20]
    with pytest.raises(ClientError, match="is there already"):
        small.export(path)
    assert small.export(path, "csv", force=True).read_text().startswith("attempt,rank,step")


def test_wrong_arguments_are_said_by_the_server(small: Run) -> None:
    with pytest.raises(ClientError, match="'names' holds 'los'"):
        small.series("los")
    with pytest.raises(ClientError, match="'attempt' must be from 1 to 1"):
        small.series("loss", attempt=3)
