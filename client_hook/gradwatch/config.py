"""What a run tells of its configuration: as JSON can hold it, bounded, and without secrets."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

from gradwatch import frames

MASK: Final = "***"
_MOST_BYTES: Final = 64 << 10  # of a configuration as JSON; the hello that carries it must stay a small frame
_MOST_ITEMS: Final = 1_000
_DEEPEST: Final = 8
# Names are split into words, so that "max_tokens" and "tokenizer" are none of them and "api-key" is.
_SECRETS: Final = re.compile(
    r"(^|_)(token|secret|password|passwd|pwd|passphrase|credentials?|api_?key|access_?key|private_?key|secret_?key|auth)($|_(id|key|value)$)"
)


def storable_config(config: Any) -> Any:
    """``config`` with values JSON can hold, anything else as its text, and whatever is named like a secret masked."""
    stored = _storable(config, "", 0)
    if len(json.dumps(stored)) > _MOST_BYTES:
        return {"gradwatch": f"the configuration is larger than {_MOST_BYTES >> 10} KiB and was left out"}
    return stored


def is_secret(name: str) -> bool:
    """Whether a setting of this name is likely one that must not be shown."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return bool(_SECRETS.search(re.sub(r"[^a-z0-9]+", "_", words.lower())))


def _storable(value: Any, name: str, depth: int) -> Any:
    if name and is_secret(name):
        return MASK
    fields = _fields(value)
    if depth >= _DEEPEST:
        return _text(value)
    if fields is not None:
        items = list(fields.items())[:_MOST_ITEMS]
        return {_text(key): _storable(item, _text(key), depth + 1) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_storable(item, "", depth + 1) for item in list(value)[:_MOST_ITEMS]]
    if value is None or isinstance(value, bool):
        return value
    if type(value) is int and abs(value) <= frames.MAX_COUNT:
        return value
    if type(value) is float and value - value == 0:
        return value
    return _text(value)


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """The named parts of what people keep settings in: mappings, argparse's namespace, dataclasses."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, SimpleNamespace) or type(value).__name__ == "Namespace":
        return dict(vars(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return None


def _text(value: Any) -> str:
    try:
        return frames.storable_text(str(value))
    except Exception:
        return f"<{type(value).__name__}>"
