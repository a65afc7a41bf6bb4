"""Large results without a status directory: files below the run's blob directory, each named by its digest."""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path

from overnight.files import is_directory
from overnight.naming import shown

_logger = logging.getLogger("overnight.worker")


def put_blob_file(directory: str | None, digest: bytes, body: bytes) -> str | None:
    """Put a result into the blob directory and return its locator; None if there is none to write to."""
    if directory is None or not is_directory(directory):
        return None
    path = Path(directory) / digest.hex()
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        _write_new(draft, body)
        draft.rename(path)
    except OSError as error:
        _logger.warning("results cannot be written to %s: %s", shown(directory), error.strerror)
        with suppress(OSError):
            draft.unlink()
        return None
    return f"file:{path}"


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
