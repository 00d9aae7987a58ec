"""Layers chosen by patterns."""

from __future__ import annotations

from typing import Any

import pytest
from gradwatch.globs import Globs

NAMES = ["encoder.0.weight", "encoder.0.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ("*", NAMES),
        ("encoder.*", NAMES[:2]),
        (["!*.bias"], ["encoder.0.weight", "head.weight"]),
        (["encoder.*", "head.bias", "!encoder.*.bias"], ["encoder.0.weight", "head.bias"]),
        ("Head.*", []),
    ],
)
def test_names_are_chosen(patterns: Any, chosen: list[str]) -> None:
    assert list(filter(Globs(patterns), NAMES)) == chosen


@pytest.mark.parametrize("patterns", [[], "", "!", [1], ["a", ""]])
def test_wrong_patterns_say_what_to_write(patterns: Any) -> None:
    with pytest.raises(ValueError, match=r'layers must be .* such as \["encoder'):
        Globs(patterns)
