"""Sealed, versioned records: everything that travels through Redis or a spool between the parts of overnight.

A record is ``magic | format | protocol | Python minor | key id | purpose | header length | header | body | tag``. The
tag is the HMAC-SHA256 over all before it, or the SHA-256 where no key is set. The header is JSON and binds the record
to its place (run, task, batch, attempt, lineage), so that a valid record cannot be moved to another place.

A reader checks size, magic, format, then the tag, and only then parses the header, compares what it binds and hands
the body on. Nothing here unpickles: bodies are bytes. Protocol version and Python minor stand in the fixed part, so a
reader that does not fit finds out before it touches the body.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import sys
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from overnight.errors import BadSeal, ForeignRecord, UnknownKey
from overnight.json_text import decoded, encoded
from overnight.keyring import Keyring

PROTOCOL = 1
PYTHON_MINOR = sys.version_info.minor
LONGEST_HEADER = 1 << 20
LARGEST_RECORD = 512 << 20

_MAGIC = b"ovnt"
_FORMAT = 1
_KEY_ID_LENGTH = 8
_NO_KEY = b"-" * _KEY_ID_LENGTH
_TAG_LENGTH = 32
_FIXED = struct.Struct(f">4sBBB{_KEY_ID_LENGTH}sBI")
_START = _FIXED.size


class Purpose(IntEnum):
    """What a record is for; a record of one purpose is refused where another is expected."""

    TASK = 1
    RESULT = 2
    SPEC = 3
    SPOOL = 4
    CONTROL = 5
    ERROR = 6
    BLOB = 7
    CONTEXT = 8
    CERTIFICATE = 9
    TAIL = 10


class Record(NamedTuple):
    """An opened record: its checked header and its body, still bytes."""

    purpose: Purpose
    header: Mapping[str, Any]
    body: bytes


def seal(purpose: Purpose, header: Mapping[str, Any], body: bytes, keyring: Keyring) -> bytes:
    """Return a sealed record. `header` must be JSON and should bind the record to its place."""
    head = encoded(header)
    if len(head) > LONGEST_HEADER:
        raise BadSeal(f"A record header may hold {LONGEST_HEADER} bytes, not {len(head)}.")
    key_id = keyring.signing_id.encode("ascii") if keyring.keys else _NO_KEY
    fixed = _FIXED.pack(_MAGIC, _FORMAT, PROTOCOL, PYTHON_MINOR, key_id, purpose, len(head))
    sealed = b"".join((fixed, head, body))
    return sealed + (keyring.sign(sealed)[1] if keyring.keys else hashlib.sha256(sealed).digest())


def open_sealed(
    record: bytes,
    purpose: Purpose,
    keyring: Keyring,
    *,
    bound: Mapping[str, Any] | None = None,
    any_python: bool = True,
) -> Record:
    """Check `record` and return it opened.

    `bound` holds header fields that must be present with exactly these values. `any_python` False also demands this
    interpreter's minor version, as everything that will be unpickled must.

    Raises BadSeal if the record is damaged, unsigned, signed by an unknown key, of another purpose or bound to another
    place; ForeignRecord if it is of another protocol or Python minor.
    """
    end = len(record) - _TAG_LENGTH
    if end < _START or len(record) > LARGEST_RECORD:
        raise BadSeal(f"A sealed record cannot hold {len(record)} bytes.")
    magic, form, protocol, minor, key_id, found_purpose, head_length = _FIXED.unpack_from(record)
    if magic != _MAGIC or form != _FORMAT:
        raise BadSeal("This is not a sealed record of overnight.")
    if keyring.keys or key_id != _NO_KEY:
        _check_signature(record, key_id, keyring)
    elif not hmac.compare_digest(hashlib.sha256(memoryview(record)[:end]).digest(), record[end:]):
        raise BadSeal("The record is damaged: its checksum does not fit.")
    if protocol != PROTOCOL or (minor != PYTHON_MINOR and not any_python):
        raise _foreign(protocol, minor)
    if found_purpose != purpose:
        raise BadSeal(f"A record for {purpose.name.lower()} was expected, found one of purpose {found_purpose}.")
    body = _START + head_length
    if head_length > LONGEST_HEADER or body > end:
        raise BadSeal("The header of a sealed record is longer than the record.")
    header = _parsed(record[_START:body])
    if bound is not None:
        _check_place(header, bound)
    return Record(purpose, header, record[body:end])


def _foreign(protocol: int, minor: int) -> ForeignRecord:
    if protocol != PROTOCOL:
        return ForeignRecord(f"The record was made by protocol {protocol}; this process speaks protocol {PROTOCOL}.")
    return ForeignRecord(f"The record was made by Python 3.{minor}; this process runs Python 3.{PYTHON_MINOR}.")


def _check_place(header: Mapping[str, Any], bound: Mapping[str, Any]) -> None:
    for name, value in bound.items():
        if header.get(name) != value:
            raise BadSeal(f"A sealed record belongs to {name} {header.get(name)!r}, not to {value!r}.")


def _parsed(text: bytes) -> dict[str, Any]:
    """Return a header. Where no key is set, a checksum does not prove that overnight wrote it."""
    try:
        header = decoded(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise BadSeal("The header of a sealed record is none that overnight writes.")
    return header


def _check_signature(record: bytes, key_id: bytes, keyring: Keyring) -> None:
    signer = key_id.decode("ascii", "replace")
    if keyring.is_empty:
        raise UnknownKey(f"The record is signed by key {signer}, and no key is set here.")
    if not keyring.verify(record[:-_TAG_LENGTH], signer, record[-_TAG_LENGTH:]):
        if key_id == _NO_KEY or signer not in keyring.ids:
            found = "not signed at all" if key_id == _NO_KEY else f"signed by key {signer}"
            raise UnknownKey(f"The record is {found}, not signed by a known key: {', '.join(keyring.ids)}.")
        raise BadSeal("The record is damaged or not signed by a known key.")
