"""What ``gradwatch doctor`` looks at, one subject a file: without torch, without changing anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report. ``advice``: what to do about it, empty where nothing is to be done."""

    name: str
    state: State
    text: str
    advice: str = ""
