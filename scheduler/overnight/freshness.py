"""Which tasks must run: the pure rule over records and file times (BEHAVIOUR C9, C15, F1 to F6).

Tasks are numbers in topological order. Everything that was looked up is handed in; nothing here reads a file, a
clock or a flag. `Plan` holds the smallest set of tasks that must run, with a sentence for each, and can be told of
further ones: the set closes itself again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from overnight.lineage import Dependencies, same_dependencies

NEVER_RAN = "never ran"
#: Between the function names of a chain.
CHAIN_SEPARATOR = " | "
_SECOND = 10**9
_UNITS = (
    ("d", 86_400 * _SECOND), ("h", 3600 * _SECOND), ("min", 60 * _SECOND), ("s", _SECOND),
    ("ms", 10**6), ("us", 10**3), ("ns", 1),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileTime:
    """An existing file. `mtime_ns` is None if only its existence counts."""

    mtime_ns: int | None
    is_directory: bool = False


Times = Mapping[str, FileTime]


@dataclass(frozen=True, slots=True)
class TaskFiles:
    """The files that a task declares."""

    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    intermediates: Sequence[str] = ()


class OwnRecord(NamedTuple):
    """A task's own record before files are compared.

    `reason` says why the record does not stand at all, None that it does. `flag_time_ns` is when it was written;
    None if its store keeps no time, or decides by itself (`decided`: then no file is compared).
    """

    reason: str | None
    flag_time_ns: int | None = None
    decided: bool = False


class Identity(NamedTuple):
    """What makes a record that of a task as it is declared now. None is unknown and matches anything."""

    function: str | None
    dependencies: Dependencies | None
    python: str | None


def identity_difference(stored: Identity, function: str | None, dependencies: Sequence[str], python: str) -> str | None:
    """Say what differs between a stored record and the task as declared, or return None (C15)."""
    if stored.function is not None and function is not None and not _same_function(stored.function, function):
        return f"function changed from {stored.function} to {function}"
    if stored.dependencies is not None and not same_dependencies(stored.dependencies, dependencies):
        return f"dependencies changed{_dependency_changes(stored.dependencies, dependencies)}"
    if stored.python is not None and python_minor(stored.python) != python_minor(python):
        return f"Python changed from {python_minor(stored.python)} to {python_minor(python)}"
    return None


@lru_cache(maxsize=64)
def python_minor(version: str) -> str:
    """Return ``"3.11"`` of ``"3.11.9"``."""
    return ".".join(version.split(".")[:2])


def _same_function(stored: str, declared: str) -> bool:
    if stored == declared:
        return True
    pairs = list(zip(stored.split(CHAIN_SEPARATOR), declared.split(CHAIN_SEPARATOR), strict=False))
    if len(stored.split(CHAIN_SEPARATOR)) != len(declared.split(CHAIN_SEPARATOR)):
        return False
    return all(a == b or _same_in_main(a, b) for a, b in pairs)


def _same_in_main(stored: str, declared: str) -> bool:
    stored_module, _, stored_name = stored.partition(":")
    module, _, name = declared.partition(":")
    return "__main__" in (stored_module, module) and stored_name == name


def _dependency_changes(stored: Dependencies, declared: Sequence[str]) -> str:
    if not isinstance(stored, tuple):
        return f" from {stored.count} to {len(declared)}" if stored.count != len(declared) else ""
    added = sorted(set(declared) - set(stored))
    removed = sorted(set(stored) - set(declared))
    parts = [f"{word} {_some(names)}" for word, names in (("added", added), ("removed", removed)) if names]
    return f": {', '.join(parts)}" if parts else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class Inputs:
    """The input files of one task, or those shared by all tasks of a graph: which are missing, which is newest."""

    __slots__ = ("missing", "newest", "present")

    def __init__(self, paths: Iterable[str], times: Times) -> None:
        self.missing: list[str] = []
        self.newest: tuple[int, str] | None = None
        self.present = False
        for path in paths:
            self._take(path, times.get(path))

    def _take(self, path: str, file: FileTime | None) -> None:
        if file is None:
            self.missing.append(path)
            return
        self.present = True
        if (
            not file.is_directory
            and file.mtime_ns is not None
            and (self.newest is None or file.mtime_ns > self.newest[0])
        ):
            self.newest = (file.mtime_ns, path)

    def joined(self, other: Inputs) -> Inputs:
        """Return both taken together."""
        if not (other.present or other.missing):
            return self
        both = Inputs((), {})
        both.missing = self.missing + other.missing
        both.present = self.present or other.present
        both.newest = max((newest for newest in (self.newest, other.newest) if newest), default=None)
        return both


def file_reason(
    files: TaskFiles, inputs: Inputs, flag_time_ns: int | None, times: Times, exempt: Collection[str] = ()
) -> str | None:
    """Say why the files make a successful record stale, or return None if they do not (C9, C10).

    `inputs` are the graph's and the task's; missing ones in `exempt` are absent by design (F1).
    """
    missing_output = next((path for path in files.outputs if path not in times), None)
    if missing_output is not None:
        return f"output {missing_output} is missing"
    missing_input = next((path for path in inputs.missing if path not in exempt), None)
    if missing_input is not None:
        return f"input {missing_input} is missing"
    if inputs.newest is None:
        return None
    products, kind = _products(files, times)
    oldest = _oldest(products, kind, flag_time_ns, times)
    if oldest is None or inputs.newest[0] <= oldest[0]:
        return None
    age = duration_text(inputs.newest[0] - oldest[0])
    return f"input {inputs.newest[1]} is newer than {oldest[1]} by {age}"


def _products(files: TaskFiles, times: Times) -> tuple[Sequence[str], str]:
    """Return the files that the inputs are compared with; none means the flag."""
    if files.outputs:
        return files.outputs, "output"
    if files.intermediates and all(path in times for path in files.intermediates):
        return files.intermediates, "intermediate output"
    return (), ""


def _oldest(products: Sequence[str], kind: str, flag_time_ns: int | None, times: Times) -> tuple[int, str] | None:
    """Return time and name of the oldest product; a directory's time is the flag's."""
    if not products:
        return None if flag_time_ns is None else (flag_time_ns, "its record")
    oldest: tuple[int, str] | None = None
    for path in products:
        file = times[path]
        time_ns = flag_time_ns if file.is_directory else file.mtime_ns
        if time_ns is not None and (oldest is None or time_ns < oldest[0]):
            oldest = (time_ns, f"{kind} {path}")
    return oldest


def duration_text(nanoseconds: int) -> str:
    """Return a duration for people in its largest fitting unit, as in ``"2 h"``."""
    unit, size = next(((unit, size) for unit, size in _UNITS if nanoseconds >= size), _UNITS[-1])
    return f"{nanoseconds / size:.3g} {unit}"
