"""What a server is told from outside: ``GRADWATCH_*`` in the environment, or arguments of ``gradwatch serve``."""

from __future__ import annotations

import importlib.util
import ipaddress
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEFAULT_PORT: Final = 7531
SHORTEST_TOKEN: Final = 16  # characters; `gradwatch token create` makes 43


class Settings(BaseSettings):
    """Every setting of the server, with its default."""

    # Empty values count as unset, and a server must start in an environment where the hook's settings stand too.
    model_config = SettingsConfigDict(env_prefix="GRADWATCH_", env_ignore_empty=True, extra="ignore")

    dir: Path = Field(default_factory=lambda: Path.home() / ".gradwatch")
    database: str = ""  # "" = gradwatch.db in dir
    host: str = "127.0.0.1"
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    token: SecretStr | None = None
    webhook_url: str | None = None
    allowed_hosts: Annotated[list[str], NoDecode] = []
    lost_after_seconds: float = Field(default=60.0, gt=0)
    keep_raw_days: float | None = Field(default=None, gt=0)

    @field_validator("dir")
    @classmethod
    def _home(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("token")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < SHORTEST_TOKEN:
            raise ValueError(
                f"the token needs at least {SHORTEST_TOKEN} characters: make one by `gradwatch token create`"
            )
        return value

    @field_validator("webhook_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("the webhook must be an http:// or https:// address")
        return value

    @property
    def database_url(self) -> str:
        """The database as SQLAlchemy's asynchronous drivers want it."""
        given = self.database
        if not given:
            return f"sqlite+aiosqlite:///{self.dir / 'gradwatch.db'}"
        scheme, separator, rest = given.partition("://")
        if not separator:
            return f"sqlite+aiosqlite:///{Path(given).expanduser().absolute()}"
        drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
        return f"{drivers.get(scheme, scheme)}://{rest}"

    @property
    def secret(self) -> str | None:
        """The token in clear, or None when the server asks for none."""
        return self.token.get_secret_value() if self.token else None


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an IP address, IPv6 without brackets) can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def static_folder() -> Path:
    """Where the dashboard's files lie: inside the wheel, or beside ``server/`` in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "static"
    return inside if inside.is_dir() else package.parents[1] / "static"


def plotly_script() -> Path | None:
    """plotly.min.js of the installed plotly package, found without importing plotly."""
    spec = importlib.util.find_spec("plotly")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        script = Path(folder) / "package_data" / "plotly.min.js"
        if script.is_file():
            return script
    return None
