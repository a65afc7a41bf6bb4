"""What an attacker without the key plants: payloads that leave a trace where they are unpickled, in wrong frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from overnight.keyring import Keyring
from overnight.pickling import dumps
from overnight.wire import Purpose, open_sealed, seal

KEY = Keyring((b"k" * 32,))
WRONG_KEY = Keyring((b"w" * 32,))
NO_KEY = Keyring()


class Canary:
    """Makes a directory where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def payload(canary: Path) -> bytes:
    """A pickle that makes `canary`."""
    return dumps(Canary(canary))


def planted(record: bytes | None, canary: Path) -> Iterator[bytes]:
    """Yield hostile values for the place of a record: bare, and, where it is sealed, framed as it with wrong seals."""
    body = payload(canary)
    yield body
    for purpose in Purpose:
        try:
            opened = open_sealed(record or b"", purpose, KEY)
        except Exception:  # it is sealed for another purpose, or not at all
            continue
        for keyring in (NO_KEY, WRONG_KEY):
            yield seal(purpose, opened.header, body, keyring)
        forged = bytearray(seal(purpose, opened.header, body, KEY))
        forged[-1] ^= 1
        yield bytes(forged)
