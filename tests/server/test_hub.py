from __future__ import annotations

from gradwatch_server.changes import RunChange
from gradwatch_server.hub import Hub


def test_changes_add_up_to_one_notice_however_many_there_are() -> None:
    hub = Hub()
    with hub.viewer() as viewer:
        hub.watch(viewer, "a")
        for step in range(10_000):
            events = [{"id": step}]
            hub.publish({"a": RunChange("a", step, step, events=events), "b": RunChange("b", step, step, state=True)})
        changes = viewer.take()
        assert (changes["a"].first, changes["a"].last) == (0, 9_999)
        assert len(changes["a"].events) <= 256 and changes["a"].events[-1] == {"id": 9_999}
        assert changes["b"].first is None and changes["b"].state
        assert viewer.take() == {} and not viewer.wake.is_set()


def test_a_run_is_watched_from_its_first_viewer_to_its_last() -> None:
    hub, heard = Hub(), []
    hub.on_watch(lambda run: heard.append((run, hub.watched(run))))
    with hub.viewer() as one:
        hub.watch(one, "a")
        with hub.viewer() as two:
            hub.watch(two, "a")
            hub.watch(two, "a")
            hub.watch(one, "b")
    assert heard == [("a", True), ("b", True), ("a", False), ("b", False)]


def test_of_other_runs_than_the_watched_one_the_landscape_does_not_matter() -> None:
    hub = Hub()
    with hub.viewer() as viewer:
        hub.watch(viewer, "a")
        for run in ("a", "b"):
            hub.publish({run: RunChange(run, landscape=True)})
            hub.publish({run: RunChange(run, state=True)})
        changes = viewer.take()
        assert changes["a"].landscape and not changes["b"].landscape


def test_a_runs_alert_reaches_viewers_of_other_runs_once_in_its_newest_form() -> None:
    hub = Hub()
    with hub.viewer() as viewer:
        hub.watch(viewer, "b")
        for count in (1, 2):
            hub.publish({"a": RunChange("a", alerts=[{"id": 1, "count": count}])})
        assert viewer.take()["a"].alerts == [{"id": 1, "count": 2}]
