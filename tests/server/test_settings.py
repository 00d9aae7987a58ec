from __future__ import annotations

from pathlib import Path

import pytest
from gradwatch_server.settings import Settings, is_loopback, plotly_script, static_folder
from pydantic import SecretStr, ValidationError


def test_everything_has_a_default_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DIR", "DATABASE", "TOKEN", "PORT"):
        monkeypatch.delenv(f"GRADWATCH_{name}", raising=False)
    assert Settings().database_url == f"sqlite+aiosqlite:///{Path.home() / '.gradwatch' / 'gradwatch.db'}"
    assert (Settings().host, Settings().port, Settings().secret) == ("127.0.0.1", 7531, None)
    monkeypatch.setenv("GRADWATCH_PORT", "80")
    monkeypatch.setenv("GRADWATCH_TOKEN", "")
    monkeypatch.setenv("GRADWATCH_ALLOWED_HOSTS", "a.example, b.example")
    monkeypatch.setenv("GRADWATCH_RUN", "the hook's")
    assert (Settings().port, Settings().secret) == (80, None)
    assert Settings().allowed_hosts == ["a.example", "b.example"]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
        ("sqlite:////tmp/x.db", "sqlite+aiosqlite:////tmp/x.db"),
        ("/tmp/x.db", "sqlite+aiosqlite:////tmp/x.db"),
    ],
)
def test_database_addresses(given: str, url: str) -> None:
    assert Settings(database=given).database_url == url


def test_a_token_is_long_and_never_printed() -> None:
    with pytest.raises(ValidationError, match="16 characters"):
        Settings(token=SecretStr("short"))
    assert "a long enough token" not in repr(Settings(token=SecretStr("a long enough token")))


def test_a_webhook_is_a_web_address() -> None:
    with pytest.raises(ValidationError, match="http"):
        Settings(webhook_url="file:///etc/passwd")


def test_loopback() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_loopback(host) for host in ("", "0.0.0.0", "::", "10.0.0.1", "localhost.evil", "127.0.0.1.x"))


def test_files_are_found() -> None:
    assert plotly_script() is not None
    assert static_folder().name == "static"
