from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from ..served import Served
from ..stream import MISSING, Writer


@pytest.fixture(scope="module")
def shown(server: Served) -> Writer:
    """A run with a bit of everything."""
    odd = np.array([1.0, np.nan, np.inf, -np.inf, -0.0, 5e-324, MISSING, 2.0])
    writer = Writer(["a.weight", "a.bias", "=cmd()"], project="shown", run="=1+1", group="g", tags=["x", "y"])
    absent = np.zeros((8, 3), bool)
    absent[3, 1] = True
    with server.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps(np.arange(8), [1, 2, np.nan], absent, loss=odd))
        socket.store(writer, writer.scalars([("=accuracy, top", 3, 0.5)]) + writer.event("fallback", "torch took over"))
    return writer


def test_the_list_is_filtered_searched_and_paged(server: Served, shown: Writer) -> None:
    found = server.get("/api/runs?project=shown")
    assert found["total"] == 1 and found["runs"][0]["id"] == shown.run
    run = found["runs"][0]
    assert len(run["sparkline"]) == 48 and [v for v in run["sparkline"] if v is not None] == [1, -0.0, 5e-324, 2]
    assert (run["state"], run["attempt"], run["last_step"], run["ranks"], run["group"]) == ("running", 1, 7, [0], "g")
    assert server.get("/api/runs?project=shown&q=%25")["total"] == 0
    assert server.get("/api/runs?project=shown&state=finished")["total"] == 0
    assert server.get("/api/runs?project=shown&offset=1") == {"runs": [], "total": 1}


def test_one_run_tells_all(server: Served, shown: Writer) -> None:
    run = server.get(f"/api/runs/{shown.run}")
    assert run["layers"][0] == {"index": 0, "name": "a.weight", "shape": [2, 3], "numel": 6, "order": 0}
    assert run["modules"] == [{"name": "a", "layers": [0, 1]}, {"name": "=cmd()", "layers": [2]}]
    assert run["config"] == {"lr": 0.1} and run["clip"]["strategy"] == "GlobalNorm" and run["norm_type"] == 2.0
    (attempt,) = run["attempts"]
    assert (attempt["number"], attempt["start_step"], attempt["last_step"]) == (1, 0, 7)


def test_rename_and_wrong_changes(server: Served, shown: Writer) -> None:
    path = f"{server.url}/api/runs/{shown.run}"
    assert httpx.patch(path, json={"name": "new", "tags": ["z"], "group": None}).json()["name"] == "new"
    run = server.get(f"/api/runs/{shown.run}")
    assert (run["name"], run["tags"], run["group"]) == ("new", ["z"], None)
    assert server.get("/api/runs?q=ne")["total"] >= 1
    wrong: list[Any] = [{"name": ""}, {"name": None}, {"name": 5}, {"tags": "x"}, {"state": "finished"}, [], "x"]
    wrong += [{"name": "x" * 2000}, {"tags": ["a\0"]}]
    for body in wrong:
        answer = httpx.patch(path, json=body)
        assert answer.status_code == 422 and isinstance(answer.json()["detail"], str), body
    assert httpx.patch(path, content=b"{").status_code == 422


def test_raw_series_name_what_json_cannot_hold(server: Served, shown: Writer) -> None:
    found = server.get(f"/api/runs/{shown.run}/series?columns=0&names=loss")
    assert found == {
        "step": list(range(8)),
        "series": {"loss": {"value": [1, "NaN", "Infinity", "-Infinity", -0.0, 5e-324, None, 2]}},
        "next": None,
    }
    assert str(found["series"]["loss"]["value"][4]) == "-0.0"


def test_reduced_series(server: Served, shown: Writer) -> None:
    found = server.get(f"/api/runs/{shown.run}/series?columns=4&names=loss&names=%3Daccuracy%2C%20top")
    assert found["columns"] == [{"first": n, "last": n + 1} for n in (0, 2, 4, 6)]
    loss = found["series"]["loss"]
    assert loss["min"] == [1, None, -0.0, 2] and loss["max"] == [1, None, 5e-324, 2]
    assert loss["last"] == ["NaN", "-Infinity", 5e-324, 2]
    assert loss["count"] == [1, 0, 2, 1] and loss["nonfinite"] == [1, 2, 0, 0]
    assert found["series"]["=accuracy, top"]["mean"] == [None, 0.5, None, None]


def test_layers_as_json_and_as_a_frame(server: Served, shown: Writer) -> None:
    from gradwatch import frames

    from ..stream import columns

    path = f"/api/runs/{shown.run}/layers?columns=4"
    found = server.get(path, headers={"accept": "application/json"})
    assert found["layers"] == ["a.weight", "a.bias", "=cmd()"]
    assert found["max"] == [[1, 2, None]] * 4 and found["nonfinite"] == [[0, 0, 2]] * 4
    assert found["count"] == [[2, 2, 0], [2, 1, 0], [2, 2, 0], [2, 2, 0]]
    answer = httpx.get(server.url + path)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert columns(frames.decode(answer.content))["grad_norm.count"].tolist() == found["count"]
    accept = {"accept": "application/json"}
    assert server.get(path + "&match=a.*", headers=accept)["layers"] == ["a.weight", "a.bias"]
    modules = server.get(path + "&by=module", headers=accept)
    assert modules["layers"] == ["a", "=cmd()"]
    assert modules["max"][0][0] == pytest.approx(5**0.5)


def test_events_and_export(server: Served, shown: Writer) -> None:
    (event,) = server.get(f"/api/runs/{shown.run}/events?kind=hook")["events"]
    assert (event["name"], event["text"]) == ("fallback", "torch took over")
    lines = httpx.get(f"{server.url}/api/runs/{shown.run}/export?format=csv").text.splitlines()
    assert len(lines) == 9 and lines[0].startswith("attempt,rank,step,time,loss,")
    assert '"\'=accuracy, top"' in lines[0] and ",grad_norm/=cmd()" in lines[0]
    assert lines[2].split(",")[:5] == ["1", "0", "1", "1000000001.0", "nan"]
    assert lines[4].split(",")[-4:] == ["0.5", "1.0", "", "nan"]


def test_pages_of_raw_series_join_without_a_gap(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.opening() + writer.steps(np.arange(12_000), loss=np.arange(12_000)))
    first, seen = 0, []
    while first is not None:
        found = server.get(f"/api/runs/{writer.run}/series?columns=0&names=loss&first={first}")
        seen += found["series"]["loss"]["value"]
        assert len(found["step"]) <= 5000
        first = found["next"]
    assert seen == list(range(12_000))


def test_a_run_without_a_step_is_empty_everywhere(server: Served, writer: Writer) -> None:
    with server.ingest() as socket:
        socket.store(writer, writer.hello())
    assert server.get(f"/api/runs/{writer.run}")["layers"] == []
    assert server.get(f"/api/runs/{writer.run}/series")["columns"] == []
    assert server.get(f"/api/runs/{writer.run}/series?columns=0&names=loss")["step"] == []
    assert httpx.get(f"{server.url}/api/runs/{writer.run}/layers").status_code == 200
    assert len(httpx.get(f"{server.url}/api/runs/{writer.run}/export").text.splitlines()) == 1


WRONG = [
    ("GET", "/api/runs/nope", 404),
    ("DELETE", "/api/runs/nope", 404),
    ("PATCH", "/api/runs/nope", 404),
    ("GET", "/api/runs/%00", 404),
    ("GET", "/api/runs/nope/series", 404),
    ("GET", "/api/runs?limit=0", 422),
    ("GET", "/api/runs?state=odd", 422),
    ("GET", "/api/runs?q=%00", 422),
    ("GET", "/api/runs?offset=99999999999999999999", 422),
    ("GET", "/api/alerts?state=odd", 422),
    ("GET", "/api/alerts?run=%00", 422),
    ("POST", "/api/alerts/999999/ack", 404),
    ("POST", "/api/alerts/x/ack", 422),
    ("POST", "/api/alerts/99999999999999999999/ack", 422),
    ("GET", "/healthz?challenge=xyz", 422),
    ("GET", "/static/..%2f..%2fpyproject.toml", 404),
    ("GET", "/static/%2e%2e/%2e%2e/pyproject.toml", 404),
    ("GET", "/static//etc/passwd", 404),
    ("GET", "/static/%00", 404),
    ("GET", "/docs", 404),
]
WRONG_OF_RUN = [
    "series?columns=-1",
    "series?columns=20000",
    "series?first=x",
    "series?first=-1",
    "series?first=5&last=4",
    "series?first=99999999999999999999",
    "series?names=nope",
    "series?attempt=9",
    "series?attempt=0",
    "series?rank=9",
    "layers?metric=grad_histogram",
    "layers?metric=weight_norm&by=module",
    "histograms",
    "histograms?layer=nope",
    "histograms?layer=a.bias&columns=0",
    "histograms?layer=a.bias&first=5&last=4",
    "layers?by=tensor",
    "layers?metric=weight_norm&columns=0",
    "layers?by=module&columns=0",
    "layers?columns=-1",
    "events?kind=odd",
    "export?format=xls",
]


def test_wrong_requests_are_answered_with_a_sentence(server: Served, shown: Writer) -> None:
    for method, path, wanted in WRONG + [("GET", f"/api/runs/{shown.run}/{rest}", 422) for rest in WRONG_OF_RUN]:
        answer = httpx.request(method, server.url + path)
        assert answer.status_code == wanted, (path, answer.text)
        assert isinstance(answer.json()["detail"], str) and len(answer.json()["detail"]) > 5, path


def test_a_search_for_the_runs_own_name(server: Served, shown: Writer) -> None:
    assert server.get("/api/runs?project=shown&q=1%2B1")["runs"][0]["id"] == shown.run
