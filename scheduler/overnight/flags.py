"""The format of a flag: the sealed record of one task's outcome (BEHAVIOUR C11 to C16).

    overnight-flag 1 <signature or ->
    {one line of JSON: the header; its last member is the SHA-256 of the line before that member}
    body

The signature is the hex HMAC-SHA256 of the header line under a secret key. The header holds length and SHA-256 of
the body, so the seal covers every byte: with a key against forgery, without one against damage. Whoever needs facts
alone reads the header; nothing here unpickles, and nothing here touches a file.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple

from overnight.errors import BadSeal, ForeignRecord
from overnight.flag_header import (
    DONE,
    FAILED,
    STATES,
    UNSTORED,
    AttemptFacts,
    FlagHeader,
    header_text,
    lineage_of_header,
    parsed_header,
    record_of,
)
from overnight.keyring import Keyring

__all__ = [
    "DONE",
    "FAILED",
    "STATES",
    "UNSTORED",
    "AttemptFacts",
    "Flag",
    "FlagHeader",
    "FoundFlag",
    "body_in",
    "check_place",
    "decode_flag",
    "decode_head",
    "encode_flag",
    "framed",
    "holds_header",
    "lineage_of_header",
    "record_of",
    "sealed_header",
]

FORMAT = 1
LONGEST_HEADER_BYTES = 1024 * 1024
LONGEST_FIRST_LINE_BYTES = 128
_MAGIC = b"overnight-flag "
_FIRST_LINE = re.compile(rb"overnight-flag ([0-9]{1,9}) (-|[0-9a-f]{64})")
_UNSIGNED = _MAGIC + b"%d -\n" % FORMAT
_CHECK_NAME = b',"header_sha256":"'
_CHECK_LENGTH = len(_CHECK_NAME) + 64 + len(b'"}')


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag whose seal was verified."""

    header: FlagHeader
    body: bytes


class FoundFlag(NamedTuple):
    """A header whose seal was verified, and the modification time of its flag in ns, None where its store keeps none.

    `body`, likewise verified, is None unless it was asked for and came along with the header.
    """

    header: FlagHeader
    mtime_ns: int | None
    body: bytes | None = None


def encode_flag(header: FlagHeader, body: bytes, keyring: Keyring) -> bytes:
    """Return the flag of an outcome; length and digest of the body are filled in, the first key signs.

    Raise ValueError if the header is larger than 1 MiB.
    """
    return framed(sealed_header(header, body), body, keyring)


def sealed_header(header: FlagHeader, body: bytes) -> FlagHeader:
    """Return the header with length and digest of its body."""
    return header._replace(body_bytes=len(body), body_sha256=hashlib.sha256(body).hexdigest())


def framed(header: FlagHeader, body: bytes, keyring: Keyring) -> bytes:
    """Return the flag of a header that is sealed with its body. Raise ValueError as `encode_flag`."""
    line = _header_line(header)
    signature = b"-" if keyring.is_empty else keyring.sign(line)[1].hex().encode("ascii")
    return b"".join((_MAGIC, b"%d %b\n" % (FORMAT, signature), line, b"\n", body))


def _header_line(header: FlagHeader) -> bytes:
    open_line = header_text(header).encode("ascii")[:-1]
    line = open_line + _check_of(open_line)
    if len(line) > LONGEST_HEADER_BYTES:
        raise ValueError(f"The header of task {header.task_id!r} has {len(line)} bytes, above 1 MiB.")
    return line


def _check_of(open_line: bytes) -> bytes:
    return _CHECK_NAME + hashlib.sha256(open_line).hexdigest().encode("ascii") + b'"}'


def holds_header(data: bytes) -> bool:
    """Tell whether the beginning of a flag reaches to the end of its header, or cannot be a flag at all."""
    first = data.find(b"\n", 0, LONGEST_FIRST_LINE_BYTES)
    if first < 0:
        return len(data) >= LONGEST_FIRST_LINE_BYTES
    return data.find(b"\n", first + 1) >= 0 or len(data) > first + LONGEST_HEADER_BYTES


def decode_head(data: bytes, keyring: Keyring) -> tuple[FlagHeader, int]:
    """Return the header and the offset of the body, from a flag or from its beginning. Raise BadSeal."""
    signature, start = _first_line(data)
    end = data.find(b"\n", start, start + LONGEST_HEADER_BYTES + 1)
    if end < 0:
        raise BadSeal("it is torn inside its header")
    line = data[start:end]
    if not keyring.is_empty:
        _check_signature(line, signature, keyring)
    open_line = line[:-_CHECK_LENGTH]
    if not line.endswith(_check_of(open_line)):
        raise BadSeal("its header is damaged")
    return parsed_header(open_line + b"}"), end + 1


def decode_flag(data: bytes, task_id: str, keyring: Keyring) -> Flag:
    """Return the flag of the task with that id. Raise BadSeal with the reason if it is not one to believe."""
    header, offset = decode_head(data, keyring)
    check_place(header, offset, task_id, len(data))
    body = data[offset:]
    _check_body(header, body)
    return Flag(header, body)


def body_in(head: bytes, header: FlagHeader, offset: int) -> bytes | None:
    """Return the body if the beginning of a flag reaches to its end. Raise BadSeal if it is damaged."""
    if len(head) < offset + header.body_bytes:
        return None
    body = head[offset:]
    _check_body(header, body)
    return body


def _check_body(header: FlagHeader, body: bytes) -> None:
    if hashlib.sha256(body).hexdigest() != header.body_sha256:
        raise BadSeal("its body has another SHA-256 than its header says")


def check_place(header: FlagHeader, offset: int, task_id: str, total_bytes: int | None) -> None:
    """Raise BadSeal if a header is that of another task, or its flag shorter or longer than it says."""
    if header.task_id != task_id:
        raise BadSeal(f"it is the record of another task, {header.task_id!r}")
    if total_bytes is not None and total_bytes != offset + header.body_bytes:
        raise BadSeal(f"it has {total_bytes} bytes where its header says {offset + header.body_bytes}")


def _first_line(data: bytes) -> tuple[bytes, int]:
    """Return the signature and where the header begins."""
    if data.startswith(_UNSIGNED):
        return b"-", len(_UNSIGNED)
    if not data:
        raise BadSeal("it is empty")
    end = data.find(b"\n", 0, LONGEST_FIRST_LINE_BYTES)
    match = _FIRST_LINE.fullmatch(data, 0, end) if end >= 0 else None
    if match is None:
        raise BadSeal("it is torn" if _MAGIC.startswith(data[: len(_MAGIC)]) else "it is not a flag")
    if int(match[1]) != FORMAT:
        raise ForeignRecord(f"it has format {int(match[1])}; this version of overnight reads format {FORMAT}")
    return match[2], end + 1


def _check_signature(line: bytes, signature: bytes, keyring: Keyring) -> None:
    if signature == b"-":
        raise BadSeal("it is not signed, and a secret key is set")
    if not keyring.verify(line, None, bytes.fromhex(signature.decode("ascii"))):
        raise BadSeal("it is not signed by a known key")
