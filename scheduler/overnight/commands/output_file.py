"""Put a file where a person asked for it: whole, or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from overnight.errors import UsageError
from overnight.naming import shown


def write_output(what: str, path: Path, data: bytes, *, mode: int) -> None:
    """Put a file in place whole, with a mode below the umask; what a link names is replaced, and no device or pipe:
    those are written to. What was there stays if the new file cannot be written. Raises UsageError then."""
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                stream.write(data)
        else:
            _replace(path.resolve(), data, mode)
    except (OSError, RuntimeError) as error:  # links that go in a circle are a RuntimeError
        reason = error.strerror if isinstance(error, OSError) else "its links go in a circle"
        place = shown(str(path))
        raise UsageError(f"The {what} cannot be written to {place}: {reason}. Give another file with -o.") from error


def _replace(path: Path, data: bytes, mode: int) -> None:
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise
