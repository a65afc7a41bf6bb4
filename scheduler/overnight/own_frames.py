"""Which part of a traceback is the user's: overnight's own frames are left out, and the place of a failure is named.

The frames around a task's function (`invoke`, a chain, the worker's child) say nothing about the task. They are known
by their module, so that tasks which overnight itself offers as examples keep theirs.
"""

from __future__ import annotations

import re
import sysconfig
from functools import cache
from pathlib import Path
from types import TracebackType

_AROUND_TASKS = frozenset({"overnight.invoke", "overnight.chain", "overnight_worker.attempts"})
_OWN = Path(__file__).parent
_EXAMPLES = _OWN / "examples"
_NOT_USERS = frozenset({"site-packages", "dist-packages"})
_PICKLERS = frozenset({"cloudpickle.py", "pickle.py"})
_FRAME = re.compile(r'^  File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<name>.+)$', re.MULTILINE)
#: A frame as the interpreter prints it when it crashes, the innermost one first.
_DUMPED = re.compile(r'^  File "(?P<file>[^"\n]+)", line (?P<line>\d+) in (?P<name>.+)\n?', re.MULTILINE)
_HEADING = "Traceback (most recent call last):\n"


def without_own_frames(error: BaseException) -> BaseException:
    """Return the exception with a traceback that begins in the task's own code."""
    return error.with_traceback(_below(error.__traceback__))


def _below(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_globals.get("__name__") in _AROUND_TASKS:
        trace = trace.tb_next
    return trace


def place_of(traceback_text: str) -> str | None:
    """Return where a formatted traceback's exception was raised, as ``file.py:12 in function``; None without frames.

    The innermost frame counts that belongs neither to overnight, to the standard library nor to an installed package;
    if there is none, the innermost that is neither overnight's nor the pickler's. Overnight's examples are a user's.
    """
    frames = list(_FRAME.finditer(traceback_text.rpartition(_HEADING)[2]))
    users = [frame for frame in frames if is_users(frame["file"])]
    others = [frame for frame in frames if not _is_own(path := Path(frame["file"])) and path.name not in _PICKLERS]
    for frame in reversed(users or others):
        return f"{Path(frame['file']).name}:{frame['line']} in {frame['name']}"
    return None


def place_in_dump(text: str) -> str | None:
    """Return where the interpreter crashed, as its last words tell: the innermost frame that is a user's."""
    for frame in _DUMPED.finditer(text):
        if is_users(frame["file"]):
            return f"{Path(frame['file']).name}:{frame['line']} in {frame['name']}"
    return None


def without_dumped_own_frames(text: str) -> str:
    """Return a crashed interpreter's last words without the frames around the task's function."""
    return _DUMPED.sub(lambda frame: "" if _is_around_tasks(frame["file"]) else frame[0], text)


def _is_around_tasks(file: str) -> bool:
    return file.startswith("<") or _is_own(Path(file))


def is_users(file: str) -> bool:
    """Tell whether a source file is neither of the standard library, nor of an installed package, nor overnight's."""
    path = Path(file)
    if file.startswith("<") or not _NOT_USERS.isdisjoint(path.parts):
        return False
    return not (path.is_relative_to(_standard_library()) or _is_own(path))


@cache
def _standard_library() -> Path:
    """Where it lies; finding that out takes a third of a millisecond."""
    return Path(sysconfig.get_path("stdlib"))


def _is_own(path: Path) -> bool:
    """Tell whether a file is overnight's, in which case its place says nothing about a task."""
    return "overnight_worker" in path.parts or (path.is_relative_to(_OWN) and not path.is_relative_to(_EXAMPLES))
