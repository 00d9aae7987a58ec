"""Settings: argument over environment over default."""

from __future__ import annotations

from pathlib import Path

import pytest
from gradwatch.settings import Settings


def test_defaults() -> None:
    settings = Settings.gather(environment={})
    assert settings == Settings(Path.home() / ".gradwatch", None, None, "online", "default", None, None)
    assert settings.spool == Path.home() / ".gradwatch" / "spool"


def test_arguments_win_over_the_environment() -> None:
    said = {
        "GRADWATCH_DIR": "/d", "GRADWATCH_SERVER": "http://a:1/", "GRADWATCH_TOKEN": "t", "GRADWATCH_MODE": "offline",
        "GRADWATCH_PROJECT": "p", "GRADWATCH_RUN": "r", "GRADWATCH_GROUP": "g",
    }  # fmt: skip
    assert Settings.gather(environment=said) == Settings(Path("/d"), "http://a:1", "t", "offline", "p", "r", "g")
    given = Settings.gather(server="https://b", mode="disabled", project="q", group="h", environment=said)
    assert given == Settings(Path("/d"), "https://b", "t", "disabled", "q", "r", "h")


def test_a_wrong_mode_is_named() -> None:
    with pytest.raises(ValueError, match="GRADWATCH_MODE"):
        Settings.gather(environment={"GRADWATCH_MODE": "of"})
