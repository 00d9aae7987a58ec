"""The demo's text: the Python standard library's own sources, which every machine that runs the demo has."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

ALPHABET: Final = "\n" + "".join(chr(code) for code in range(32, 127))
_MODULES: Final = ("argparse", "ast", "configparser", "dataclasses", "datetime", "inspect", "typing", "unittest/case")


def read_corpus() -> Tensor:
    """The sources as indices into ALPHABET, shape (characters,), int64. Other characters are left out."""
    library = Path(sysconfig.get_path("stdlib"))
    text = "".join((library / f"{name}.py").read_text(encoding="utf-8", errors="ignore") for name in _MODULES)
    table = {letter: index for index, letter in enumerate(ALPHABET)}
    return torch.tensor([table[letter] for letter in text if letter in table])
