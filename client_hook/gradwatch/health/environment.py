"""The settings in the environment: are they right, and are they settings at all."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from gradwatch.health import Check
from gradwatch.settings import Settings

PREFIX: Final = "GRADWATCH_"
HOOKS: Final = ("DIR", "SERVER", "TOKEN", "MODE", "PROJECT", "RUN", "GROUP", "RANKS", "SPOOL_CAP")
# The server's own settings, which the hook must not import; a test compares.
SERVERS: Final = ("DATABASE", "HOST", "PORT", "WEBHOOK_URL", "ALLOWED_HOSTS", "LOST_AFTER_SECONDS", "KEEP_RAW_DAYS")
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def check_settings(environment: Mapping[str, str], server: str | None = None) -> tuple[list[Check], Settings | None]:
    """The checks, and the settings where they can be used."""
    checks = [_unknown(name) for name in sorted(environment) if name.upper().startswith(PREFIX) and not _known(name)]
    try:
        settings = Settings.gather(server=server, environment=environment)
    except ValueError as error:
        return [*checks, Check("settings", "fail", str(error), "correct it, or unset it")], None
    checks += _token(settings)
    if settings.mode != "online":
        consequence = "trainings send nothing" if settings.mode == "offline" else "trainings record nothing"
        advice = f"unset {PREFIX}MODE to have trainings stream to the server"
        checks.append(Check("settings", "warn", f"{PREFIX}MODE is {settings.mode}: {consequence}", advice))
    if not checks:
        said = [name for name in sorted(environment) if name.startswith(PREFIX)]
        checks.append(Check("settings", "ok", ", ".join(said) if said else "all as by default"))
    return checks, settings


def _known(name: str) -> bool:
    return name.removeprefix(PREFIX) in (*HOOKS, *SERVERS)


def _unknown(name: str) -> Check:
    known = [PREFIX + each for each in (*HOOKS, *SERVERS)]
    nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.75)
    advice = f"is {nearest[0]} meant?" if nearest else f"the settings are {', '.join(known)}"
    return Check("settings", "warn", f"{name} is no setting of gradwatch and is ignored", advice)


def _token(settings: Settings) -> list[Check]:
    token, name = settings.token, f"{PREFIX}TOKEN"
    if token is None:
        return []
    if token != token.strip() or token[:1] in "'\"":
        return [Check("settings", "warn", f"{name} has blanks or quotes around it", "set it without them")]
    if not (token.isascii() and token.isprintable()):
        return [Check("settings", "fail", f"{name} holds characters that cannot be sent", "use the token as created")]
    address = urlsplit(settings.server or "")
    if address.scheme == "http" and address.hostname not in LOOPBACK:
        advice = "use an https:// address, or a tunnel: ssh -L 7531:127.0.0.1:7531 HOST and http://127.0.0.1:7531"
        return [Check("settings", "warn", f"the token goes to {address.hostname} unencrypted", advice)]
    return []
