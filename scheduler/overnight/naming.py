"""Task ids and the names made from them (BEHAVIOUR I1 to I8).

Pure functions: an id is free text, and every name that the system makes from one (file, log line) is injective,
so that distinct tasks never meet in one file.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shlex

from overnight.errors import InvalidTaskId

LONGEST_ID = 200
_CUT_ID_PREFIX = 159
_CUT_ID_DIGEST = 40
_PLAIN_FILE_NAME = re.compile(r"[a-z0-9_][a-z0-9_-]{0,99}")
_FILE_PREFIX_LENGTH = 60
_FILE_DIGEST_LENGTH = 32
_NOT_IN_FILE_NAME = re.compile(r"[^A-Za-z0-9_-]")
_SAFE_ID_PREFIX = 150
_SAFE_ID_REPLACED = str.maketrans(dict.fromkeys("./,()-:; ", "_"))
_TO_ESCAPE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_TO_ESCAPE_QUOTED = re.compile(rf"['\\]|{_STEERING.pattern}")
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_logger = logging.getLogger(__name__)


def check_task_id(task_id: object) -> str:
    """Return `task_id` if it is a usable id; raise TypeError or InvalidTaskId otherwise (I1)."""
    if not isinstance(task_id, str):
        raise TypeError(f"A task id must be a str, not {type(task_id).__name__}: {task_id!r}.")
    if not task_id:
        raise InvalidTaskId("A task id must not be empty.")
    if "\0" in task_id:
        raise InvalidTaskId(f"A task id must not hold NUL: {task_id!r}.")
    if not is_text(task_id):
        raise InvalidTaskId(f"A task id must not hold a lone surrogate: {task_id!a}.")
    return task_id


def is_text(text: str) -> bool:
    """Tell whether a text can be written in UTF-8: one with a lone surrogate cannot, as Python makes of other bytes."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def bounded_task_id(task_id: str) -> str:
    """Return `task_id`, or a cut id of 200 characters in place of a longer one, with one warning (I2)."""
    cut = cut_task_id(task_id)
    if cut is not task_id:
        _logger.warning("A task id of %d characters was cut to %d: %s", len(task_id), len(cut), shown(task_id))
    return cut


def cut_task_id(task_id: str) -> str:
    """Return what `bounded_task_id` returns, without the warning: the rule for looking an id up (I2)."""
    if len(task_id) <= LONGEST_ID:
        return task_id
    digest = hashlib.sha256(task_id.encode("utf-8")).hexdigest()
    return f"{task_id[:_CUT_ID_PREFIX]}_{digest[:_CUT_ID_DIGEST]}"


def safe_task_id(task_id: str) -> str:
    """Return the documented cleaned form of an id: for callers only, as distinct ids may share it (I8)."""
    cleaned = task_id.translate(_SAFE_ID_REPLACED)
    if len(cleaned) <= LONGEST_ID:
        return cleaned
    digest = hashlib.sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{cleaned[:_SAFE_ID_PREFIX]}_{digest[:_CUT_ID_DIGEST]}"


def file_name(task_id: str) -> str:
    """Return the file name of an id: ASCII, one path component, distinct for distinct ids (I3, I4)."""
    if _PLAIN_FILE_NAME.fullmatch(task_id):
        return task_id
    prefix = _NOT_IN_FILE_NAME.sub("_", task_id[:_FILE_PREFIX_LENGTH])
    if prefix.startswith("-"):
        prefix = "_" + prefix[1:]
    digest = hashlib.sha256(task_id.encode("utf-8")).hexdigest()
    return f"{prefix}.{digest[:_FILE_DIGEST_LENGTH]}"


def flag_name(task_id: str) -> str:
    """Return the name of the file that records the outcome of a task (I5)."""
    return f"{file_name(task_id)}.flag"


def log_name(task_id: str) -> str:
    """Return the name of the log file of a task (I5)."""
    return f"log_{file_name(task_id)}.log"


def shown(text: str) -> str:
    """Return `text` on one line; escaped are backslashes, control characters, separators, and what turns the order of
    letters round (I7)."""
    return _TO_ESCAPE.sub(_escape, text)


def without_controls(text: str) -> str:
    """Return text of several parts, some of which are `shown` already, with what could steer a terminal escaped; lines
    and backslashes stay."""
    return _CONTROLS.sub(_escape, text)


def shell_word(text: str) -> str:
    """Return `text` as one word that can be typed: quoted as any shell reads it, or, where it could steer a terminal,
    with that escaped between ``$'`` and ``'`` as bash, zsh and ksh read it."""
    if not _STEERING.search(text):
        return shlex.quote(text)
    return f"$'{_TO_ESCAPE_QUOTED.sub(_escape_quoted, text)}'"


def _escape_quoted(match: re.Match[str]) -> str:
    character = match.group()
    if character in "'\\":
        return f"\\{character}"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character == "\\":
        return "\\\\"
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
