"""Configurations as they are sent."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gradwatch.config import is_secret, storable_config


@dataclass
class Options:
    """Settings as people keep them."""

    depth: int
    wandb_api_key: str


def test_it_is_stored_as_json_can_hold_it() -> None:
    odd = {"path": Path("/x"), "list": (1, 2.5, float("inf")), "big": 2**60, 7: None, "flag": True, "nul": "a\0b"}
    assert storable_config(odd) == {
        "path": str(Path("/x")), "list": [1, 2.5, "inf"], "big": str(2**60), "7": None, "flag": True, "nul": "a\ufffdb",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["api_token", "secret_key", "password", "API-KEY", "pwd", "awsAccessKey", "hf token"])
def test_secrets_are_masked_by_name(name: str) -> None:
    assert is_secret(name) and storable_config({"deep": [{name: "hunter2"}]}) == {"deep": [{name: "***"}]}


@pytest.mark.parametrize("name", ["max_tokens", "tokenizer", "author", "key", "lr", "secretary"])
def test_ordinary_names_are_not(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize("holder", [argparse.Namespace, Options, dict])
def test_secrets_in_namespaces_and_dataclasses_are_masked_too(holder: Any) -> None:
    config = holder(depth=3, wandb_api_key="hunter2")
    assert storable_config({"args": config}) == {"args": {"depth": 3, "wandb_api_key": "***"}}


def test_odd_objects_do_no_harm() -> None:
    class Mute:
        def __str__(self) -> str:
            raise ValueError

    cycle: dict[str, Any] = {"mute": Mute()}
    cycle["self"] = cycle
    stored = storable_config(cycle)
    assert stored["mute"] == "<Mute>" and len(json.dumps(stored)) < 10_000
