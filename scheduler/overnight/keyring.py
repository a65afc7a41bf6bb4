"""The keys that sign stored records (HMAC-SHA256).

Keys come from OVERNIGHT_SECRET_KEY or from the file that OVERNIGHT_SECRET_KEY_FILE names, one a line: the first
signs, all verify, so that a key is replaced by putting the new one first and dropping the old one later. A key is
known to people by its id, 8 hex digits of its SHA-256; no text made here holds a key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from overnight.errors import UsageError
from overnight.naming import shell_word

KEY_VARIABLE = "OVERNIGHT_SECRET_KEY"
KEY_FILE_VARIABLE = "OVERNIGHT_SECRET_KEY_FILE"
SHORTEST_KEY_BYTES = 32
LARGEST_KEY_FILE_BYTES = 64 * 1024
COMMAND_THAT_MAKES_A_KEY = "python3 -c 'import secrets; print(secrets.token_hex(32))'"

_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")


@dataclass(frozen=True, repr=False)
class Keyring:
    """Zero or more secret keys of at least 32 bytes; the first one signs."""

    keys: tuple[bytes, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Tell whether records are neither signed nor verified."""
        return not self.keys

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys."""
        return tuple([key_id(key) for key in self.keys])

    @property
    def signing_id(self) -> str:
        """The id of the key that signs. Raise UsageError if there is none."""
        if self.is_empty:
            raise UsageError(f"There is no key to sign with: set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}.")
        return self.ids[0]

    def sign(self, data: bytes) -> tuple[str, bytes]:
        """Return the id of the signing key and the 32-byte tag of `data`. Raise UsageError without a key."""
        return self.signing_id, hmac.digest(self.keys[0], data, "sha256")

    def verify(self, data: bytes, signer: str | None, tag: bytes) -> bool:
        """Tell whether `tag` is the tag of `data` under the key with the id `signer`; None means any key."""
        candidates = [key for key, name in zip(self.keys, self.ids, strict=True) if signer is None or name == signer]
        return any([hmac.compare_digest(hmac.digest(key, data, "sha256"), tag) for key in candidates])  # noqa: C419 - every key is tried, so that time does not tell which one fits

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.ids)})"


def key_id(key: bytes) -> str:
    """Return the name by which people know a key: the first 8 hex digits of its SHA-256."""
    return hashlib.sha256(key).hexdigest()[:8]


def read_keyring(environ: Mapping[str, str] = os.environ) -> Keyring:
    """Return the keys that the environment gives, or an empty keyring. Raise UsageError if one is unfit."""
    path = environ.get(KEY_FILE_VARIABLE)
    text = environ.get(KEY_VARIABLE)
    if path is not None and text is not None:
        raise UsageError(f"Both {KEY_VARIABLE} and {KEY_FILE_VARIABLE} are set; unset one of them.")
    if path is not None:
        return _parsed(_guarded_text(path), f"The key file {path}")
    if text is not None:
        return _parsed(text, KEY_VARIABLE)
    return Keyring()


def _parsed(text: str, source: str) -> Keyring:
    lines = [line.strip() for line in text.splitlines()]
    keys = tuple(_decoded(line, source) for line in lines if line)
    if not keys:
        raise UsageError(f"{source} holds no key. {_advice()}")
    return Keyring(keys)


def _decoded(line: str, source: str) -> bytes:
    try:
        key = bytes.fromhex(line) if _HEX.fullmatch(line) else base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(f"{source} holds a line that is neither hex nor base64. {_advice()}") from None
    if len(key) < SHORTEST_KEY_BYTES:
        raise UsageError(
            f"{source} holds a key of {len(key)} bytes; at least {SHORTEST_KEY_BYTES} are needed. {_advice()}"
        )
    return key


def _advice() -> str:
    return f"This command makes a key: {COMMAND_THAT_MAKES_A_KEY}"


def _guarded_text(path: str) -> str:
    """Return the content of a key file that only its owner, this user, can read. Never blocks on a FIFO."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            _check_guarded(os.fstat(descriptor), path)
            return file.read(LARGEST_KEY_FILE_BYTES).decode("ascii", "replace")
    except OSError as error:
        raise UsageError(f"The key file {path} cannot be read: {error.strerror}.") from error


def _check_guarded(facts: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise UsageError(f"The key file {path} is not a regular file.")
    if facts.st_uid != os.geteuid():
        raise UsageError(f"The key file {path} belongs to user {facts.st_uid}; it must belong to user {os.geteuid()}.")
    if stat.S_IMODE(facts.st_mode) & 0o077:
        raise UsageError(
            f"The key file {path} has mode {stat.S_IMODE(facts.st_mode):04o}, so others may reach it. "
            f"Run: chmod 600 {shell_word(str(path))}"
        )
    if facts.st_size > LARGEST_KEY_FILE_BYTES:
        raise UsageError(f"The key file {path} has {facts.st_size} bytes; the limit is {LARGEST_KEY_FILE_BYTES}.")
