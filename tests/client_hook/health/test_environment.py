"""The settings of the environment: wrong values, misspelt names and careless tokens are told, secrets are not."""

from __future__ import annotations

from gradwatch.health import Check
from gradwatch.health.environment import HOOKS, SERVERS, check_settings
from gradwatch.settings import Settings
from gradwatch_server.settings import Settings as ServerSettings

SECRET = "correct-horse-battery-staple"


def states(checks: list[Check]) -> list[str]:
    return [check.state for check in checks]


def test_the_known_names_are_those_of_hook_and_server() -> None:
    assert {name.lower() for name in (*HOOKS, *SERVERS)} >= set(ServerSettings.model_fields)
    assert {name.lower() for name in SERVERS} <= set(ServerSettings.model_fields)
    named = {"DIR": "directory", "RANKS": "every_rank"}
    own = {named.get(name, name.lower()) for name in HOOKS}
    assert own == set(Settings.__dataclass_fields__)


def test_nothing_said_is_in_order() -> None:
    checks, settings = check_settings({"PATH": "/bin"})
    assert states(checks) == ["ok"] and settings is not None and settings.mode == "online"


def test_settings_are_named_without_their_values() -> None:
    checks, settings = check_settings({"GRADWATCH_TOKEN": SECRET, "GRADWATCH_PROJECT": "lm", "GRADWATCH_PORT": "1"})
    assert states(checks) == ["ok"] and checks[0].text == "GRADWATCH_PORT, GRADWATCH_PROJECT, GRADWATCH_TOKEN"
    assert SECRET not in repr(checks) and settings is not None


def test_a_misspelt_name_is_told_with_the_nearest_one() -> None:
    checks, settings = check_settings({"GRADWATCH_TOKN": SECRET, "gradwatch_token": SECRET, "GRADWATCH_XYZZY": "1"})
    assert states(checks) == ["warn"] * 3 and settings is not None
    by_name = {check.text.split()[0]: check.advice for check in checks}
    assert by_name["GRADWATCH_TOKN"] == by_name["gradwatch_token"] == "is GRADWATCH_TOKEN meant?"
    assert by_name["GRADWATCH_XYZZY"].startswith("the settings are GRADWATCH_DIR, GRADWATCH_SERVER")
    assert SECRET not in repr(checks)


def test_a_wrong_value_fails_with_the_right_one() -> None:
    for environment, said in (
        ({"GRADWATCH_MODE": "onlin"}, "online, offline or disabled"),
        ({"GRADWATCH_SERVER": "host:7531"}, "http://host:7531"),
    ):
        checks, settings = check_settings(environment)
        assert states(checks) == ["fail"] and said in checks[0].text and settings is None
    checks, settings = check_settings({}, server="host")
    assert states(checks) == ["fail"] and settings is None


def test_modes_that_send_nothing_are_told() -> None:
    for mode in ("offline", "disabled"):
        checks, settings = check_settings({"GRADWATCH_MODE": mode})
        assert states(checks) == ["warn"] and mode in checks[0].text and settings is not None


def test_careless_tokens_are_told() -> None:
    for token, state in ((f"{SECRET}\n", "warn"), (f"'{SECRET}'", "warn"), ("schlüssel-schlüssel", "fail")):
        checks, _ = check_settings({"GRADWATCH_TOKEN": token})
        assert states(checks) == [state] and token.strip() not in repr(checks)
    far = {"GRADWATCH_TOKEN": SECRET, "GRADWATCH_SERVER": "http://gpu7.example:7531"}
    (check,), _ = check_settings(far)
    assert check.state == "warn" and "gpu7.example unencrypted" in check.text and "ssh -L" in check.advice
    for near in ("http://localhost:7531", "http://[::1]:7531", "https://gpu7.example"):
        (check,), _ = check_settings({**far, "GRADWATCH_SERVER": near})
        assert check.state == "ok"
