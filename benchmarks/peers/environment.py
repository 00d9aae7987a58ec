"""The environment that the peers and every timed training live in, apart from the project's own.

Every contender trains with the same Python and the same torch; only gradwatch's server runs where the benchmark runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
CONSTRAINTS: Final = ROOT / "tests" / "constraints.txt"
PEERS: Final = ("tensorboard==2.21.0", "wandb==0.31.0", "trackio==0.43.0")
# What gradwatch's hook needs beside torch; the hook itself comes from the checkout.
HOOK_NEEDS: Final = ("click", "numpy", "websockets")
FREE_BYTES: Final = 6 << 30  # with a CUDA build of torch, which pip takes on Linux unless told otherwise
INSTALL_SECONDS: Final = 1800
# Settings that would change what is measured, or send it elsewhere.
_FOREIGN: Final = ("PYTHONPATH", "GRADWATCH_", "WANDB_", "TRACKIO_", "HF_", "GRADIO_", "OMP_", "MKL_")


def default_folder() -> Path:
    """Kept from one call to the next, since it holds a torch of its own."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gradwatch-peers"


def prepare(folder: Path) -> str:
    """The Python of the environment in ``folder``, which is made where it is missing or pinned otherwise."""
    python = folder / "bin" / "python"
    stamp = folder / "installed.txt"
    wanted = "\n".join([sys.version, CONSTRAINTS.read_text().strip(), *PEERS, *HOOK_NEEDS])
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    folder.mkdir(parents=True, exist_ok=True)
    if not stamp.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is neither empty nor an environment of this benchmark: name another folder")
    if shutil.disk_usage(folder).free < FREE_BYTES:
        raise SystemExit(f"{folder} has less than {FREE_BYTES >> 30} GiB free: name another folder by --environment")
    stamp.write_text("unfinished")
    print(f"setting up {folder} (once) ...", file=sys.stderr, flush=True)
    settings = clean(os.environ)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], env=settings, check=True, timeout=120)
    stamp.write_text("unfinished")
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    packages = ["--constraint", str(CONSTRAINTS), "torch", *PEERS, *HOOK_NEEDS]
    subprocess.run([*install, *packages], env=settings, check=True, timeout=INSTALL_SECONDS)
    stamp.write_text(wanted)
    return str(python)


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without the settings that would change what is measured."""
    return {name: value for name, value in environment.items() if not name.startswith(_FOREIGN)}
