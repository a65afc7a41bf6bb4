"""JSON as overnight's records hold it: compact, in bytes, and quick where there is one for each task.

What the quick library declines is left to the standard one: text that is no Unicode (a path may hold such), numbers
beyond 64 bits, keys that are no text, NaN.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

_in_ascii = json.JSONEncoder(separators=(",", ":")).encode


def encoded(value: Any) -> bytes:
    """Return a value as JSON. Raises TypeError or ValueError for one that JSON cannot hold."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return _in_ascii(value).encode("ascii")


def decoded(text: bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError or RecursionError for a text that is none."""
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)
