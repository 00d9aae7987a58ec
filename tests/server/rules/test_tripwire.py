from __future__ import annotations

from gradwatch_server.rules import tripwire
from gradwatch_server.rules.tripwire import HookEvent


def test_every_event_that_says_so_is_a_critical_finding_and_no_other() -> None:
    events = [
        HookEvent("probe", 3, "probing was turned off"),
        HookEvent("probe_tripwire", 7, "the RNG state of the CPU is another than before the probe."),
        HookEvent("probe_tripwire", 0, ""),
    ]
    found, silent = tripwire.judge(events)
    assert (found.rule, found.severity, found.first_step, found.last_step, found.count) == (
        "probe_tripwire",
        "critical",
        7,
        7,
        1,
    )
    assert found.title == "A probe changed the training at step 7"
    assert (
        "Step 7: the RNG state of the CPU is another than before the probe. Probing has been turned off" in found.text
    )
    assert silent.first_step == 0 and "does not say what moved" in silent.text


def test_a_long_story_is_cut() -> None:
    (found,) = tripwire.judge([HookEvent("probe_tripwire", 1, "x" * 60_000)])
    assert len(found.text) < 2_500
