"""What the marks of one step say; which are right is stated apart from the patterns that find the wrong ones."""

from __future__ import annotations

import pytest
from gradwatch.wiring.findings import SENTENCES, Finding, judge
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("trace", "finding"),
    [
        ("ob", Finding.BEFORE_BACKWARD),
        ("bcob", Finding.BEFORE_BACKWARD),
        ("bc+", Finding.BACKWARD_BETWEEN),
        ("bcb", Finding.BACKWARD_BETWEEN),
        ("bc=+", Finding.BACKWARD_BETWEEN),
        ("bc+c+", Finding.BACKWARD_BETWEEN),
        ("bc+c", Finding.MICRO_BATCH),
        ("bc+c+c+c", Finding.MICRO_BATCH),
        (".+c+c", Finding.MICRO_BATCH),
        ("bc=", Finding.TWICE),
        ("bcbc==", Finding.TWICE),
        ("bz", Finding.ZEROED),
        ("bcbz", Finding.ZEROED),
    ],
)
def test_each_wrong_order_has_its_finding(trace: str, finding: Finding) -> None:
    assert judge([trace], clip_came_first=True) is finding
    assert judge([trace, trace], clip_came_first=True) is finding


def test_what_the_start_tells_decides_between_too_early_and_too_late() -> None:
    assert judge(["ob"], clip_came_first=False) is Finding.AFTER_STEP
    assert judge(["bc+"], clip_came_first=False) is Finding.BACKWARD_BETWEEN


# Right: nothing but turns of a backward and a clip that sees it, before which anything may have happened that was
# zeroed away; or no clip of this optimizer at all; or one of which nothing is said.
RIGHT = st.one_of(
    st.lists(st.sampled_from(["bc", "o", ".", "b.", "obc"])).map(lambda turns: "".join(turns) + "bc"),
    st.sampled_from(["b", "o", ".", "b.", "", ".b", "o."]),
)


@given(st.lists(RIGHT, max_size=3), st.booleans())
def test_right_orders_have_none(traces: list[str], first: bool) -> None:
    assert judge(traces, clip_came_first=first) is None


@given(st.text("b+c=oz.", max_size=8), st.sampled_from(["ob", "bc+", "bc=", "bz"]), RIGHT, st.booleans())
def test_one_gradient_that_went_right_is_enough_to_say_nothing(other: str, wrong: str, right: str, first: bool) -> None:
    assert judge([wrong, right], clip_came_first=first) is None
    assert judge([right, other + wrong], clip_came_first=first) is None


def test_one_gradient_that_was_certainly_added_to_speaks_for_those_that_cannot_tell() -> None:
    """Gradients that share a bucket share their version, so that only the first of them shows the addition."""
    assert judge(["bc+c", "bcbc"], clip_came_first=True) is Finding.MICRO_BATCH
    assert judge(["bcbc", "bcbc"], clip_came_first=True) is None
    assert judge(["bc+c", "bc"], clip_came_first=True) is None
    assert judge(["bc+cbc", "bcbc"], clip_came_first=True) is None


def test_every_finding_has_a_sentence_that_fits_a_line_and_says_what_to_write() -> None:
    facts = {"count": 12, "all": 144, "shape": (50257, 1600)}
    for finding in Finding:
        sentence = SENTENCES[finding].format(**facts)
        assert "write" in sentence and "{" not in sentence and "\n" not in sentence
        assert len(finding.value) + len(sentence) < 400
