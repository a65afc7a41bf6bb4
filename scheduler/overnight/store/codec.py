"""How the store's values are written on the server: text and packed bytes, readable by scripts and by people.

Pure functions, no I/O. What is sealed passes through untouched. Whoever may write to the server may have put anything
in place of a value, so a text of any other form than is written here is a DamagedRun.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from types import NoneType
from typing import Any, Final, ParamSpec, TypeVar

from overnight.core.events import Charge
from overnight.core.states import RunPhase
from overnight.errors import DamagedRun, OvernightError
from overnight.store.records import Batch, RunRecord, WorkerRecord

_CHANGING = frozenset({"phase", "paused", "added", "created_at", "ended_at", "retried", "rested", "note", "made"})
_STATIC = tuple(field.name for field in fields(RunRecord) if field.name not in _CHANGING)
_MOST_DIGITS: Final = 18
#: What JSON may hold of a field, by the field's annotation.
_JSON_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "str": (str,),
    "str | None": (str, NoneType),
    "int": (int,),
    "int | None": (int, NoneType),
    "float": (float, int),
    "float | None": (float, int, NoneType),
    "bool": (bool,),
    "Sequence[str]": (list,),
    "Mapping[str, float]": (dict,),
}
_RUN_TYPES: Final = {field.name: _JSON_TYPES[str(field.type)] for field in fields(RunRecord) if field.name in _STATIC}
_WORKER_TYPES: Final = {field.name: _JSON_TYPES[str(field.type)] for field in fields(WorkerRecord)}
NO_DIGEST: Final = bytes(32)
NO_CHARGE: Final = Charge()
_Item = TypeVar("_Item")
_P = ParamSpec("_P")
_R = TypeVar("_R")
_FAULTS_OF_FORM = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, struct.error)


def of_known_form(read: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a reader say DamagedRun of what is of another form. Errors of overnight pass."""

    @functools.wraps(read)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return read(*args, **kwargs)
        except OvernightError:
            raise
        except _FAULTS_OF_FORM as error:
            text = f"{read.__name__.replace('_', ' ').strip()}: {type(error).__name__}: {error}"
            raise DamagedRun(f"A value on the server is none that overnight writes ({text[:200]!r}).") from error

    return checked


def chunks(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Yield `items` in pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def seconds_text(time_read: tuple[int, int]) -> str:
    """Return the reply of TIME as seconds, exact to the microsecond."""
    seconds, microseconds = time_read
    return f"{seconds}.{microseconds:06d}"


@of_known_form
def unpacked_index(text: bytes) -> int:
    """Return a task's index, or a number of tasks: four bytes hold it wherever it is packed."""
    number = int(text)
    if not 0 <= number < 1 << 32:
        raise ValueError(text)
    return number


@of_known_form
def unpacked_sequence(text: bytes) -> int:
    """Return the number of a run's last event."""
    if not text.isdigit() or len(text) > _MOST_DIGITS:
        raise ValueError(text)
    return int(text)


def packed_tasks(tasks: Sequence[int]) -> str:
    """Return tasks as text: "3,17"."""
    return ",".join(map(str, tasks))


@of_known_form
def unpacked_tasks(text: bytes | None) -> Sequence[int]:
    """Return the tasks of a text, none of an empty one or if there is none."""
    return tuple(unpacked_index(task) for task in text.split(b",")) if text else ()


# Runs.


def packed_run(run: RunRecord) -> str:
    """Return the JSON of what never changes in a run."""
    values = {name: getattr(run, name) for name in _STATIC}
    values["resource_limits"] = dict(run.resource_limits)
    return json.dumps(values)


@of_known_form
def unpacked_run(meta: Mapping[bytes, bytes]) -> RunRecord:
    """Return the run that a meta hash describes."""
    stored = json.loads(meta[b"record"])
    static = _checked({name: stored[name] for name in _STATIC if name in stored}, _RUN_TYPES)
    added = unpacked_index(meta[b"added"])
    static["total"] = max(static["total"], added, 0)
    ended_at = meta.get(b"ended_at")
    return RunRecord(
        **static,
        phase=RunPhase(meta[b"phase"].decode("ascii")),
        paused=meta[b"paused"] == b"1",
        added=added,
        created_at=_finite(float(meta[b"created_at"])),
        ended_at=None if ended_at is None else _finite(float(ended_at)),
        retried=unpacked_index(meta.get(b"retried", b"0")),
        rested=_finite(float(meta.get(b"rested", b"0"))),
        note=meta.get(b"note", b"").decode("utf-8", "replace"),
        made=meta.get(b"made", b"").decode("utf-8", "replace"),
    )


def next_made(made: str, spec: bytes) -> str:
    """Return the `made` of a run once a chunk is added to it."""
    return hashlib.sha1(made.encode() + spec, usedforsecurity=False).hexdigest()


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(number)
    return number


def _checked(values: dict[str, Any], types: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Return values of JSON that are all of their fields' types; of Python's, JSON knows NaN and infinity too."""
    for name, value in values.items():
        if not isinstance(value, types[name]):
            raise TypeError(f"{name} is no {types[name][0].__name__}")
        for number in (*value.values(),) if isinstance(value, dict) else (value,):
            if isinstance(number, float):
                _finite(number)
    return values


def as_mapping(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return a mapping from a script's flat list of names and values."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


# Batches, charges, workers.


def packed_batch(batch: Batch) -> str:
    """Return the JSON that claims and recovery need of a batch."""
    return json.dumps({"queue": batch.queue, "tasks": list(batch.tasks)}, separators=(",", ":"))


def packed_charge(charge: Charge | None) -> str:
    """Return a charge as text, empty for none."""
    return "" if charge is None else f"{charge.failures} {charge.losses} {charge.not_before!r} {charge.begun}"


@of_known_form
def unpacked_charge(text: bytes | None) -> Charge:
    """Return the charge that a text describes."""
    if text is None:
        return NO_CHARGE
    failures, losses, not_before, begun = text.split()
    return Charge(int(failures), int(losses), _finite(float(not_before)), int(begun))


def packed_worker(worker: WorkerRecord) -> str:
    """Return the JSON of a worker's record."""
    return json.dumps({**asdict(worker), "queues": list(worker.queues)})


@of_known_form
def unpacked_worker(text: bytes) -> WorkerRecord:
    """Return the worker of "seen_at JSON", without what only a newer version knows."""
    seen_at, record = text.split(b" ", 1)
    values = _checked({name: one for name, one in json.loads(record).items() if name in _WORKER_TYPES}, _WORKER_TYPES)
    queues = tuple(queue for queue in values["queues"] if isinstance(queue, str))
    return WorkerRecord(**{**values, "queues": queues, "seen_at": _finite(float(seen_at))})


@of_known_form
def unpacked_duration(text: bytes) -> tuple[float, int]:
    """Return what is known of how long a function takes: seconds, and from how many observations."""
    seconds, observations = json.loads(text)
    if _finite(float(seconds)) < 0 or not isinstance(observations, int) or observations < 1:
        raise ValueError(text)
    return float(seconds), observations


def without_head(facts: bytes | None) -> bytes | None:
    """Return facts for people without the line that names the accepted batch."""
    return None if facts is None else facts.partition(b"\n")[2]


# Events.


class Cursor:
    """A position in a run's event stream: the id of the last entry read and that entry's number.

    Entries are numbered without a gap, so a follower notices one that is missing.
    """

    __slots__ = ("entry_id", "number")

    def __init__(self, entry_id: str, number: int) -> None:
        self.entry_id = entry_id
        self.number = number

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor of a text as the store gave it out; "0" is the beginning."""
        entry_id, _, number = text.partition("@")
        return cls(entry_id if "-" in entry_id else f"{entry_id}-0", int(number or 0))

    @property
    def text(self) -> str:
        """The cursor as text."""
        return f"{self.entry_id}@{self.number}"
