"""From which dependency results a result was computed.

A result is used only together with exactly the dependency results it was computed from. Two facts say which these
are: the *lineage digest*, one SHA-256 over the result digests of all dependencies in declared order, by which an
attempt is matched with its dispatch; and the *dependency records*, which also tell apart two executions of a
dependency that returned equal bytes, because such a task may have written other files.

Above 64 dependencies both are kept as one combined value, so that a flag's header stays small.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MOST_LISTED = 64


class DependencyRecord(NamedTuple):
    """One recorded outcome of a dependency; `sha256` is the hex digest of its result bytes. None is unknown."""

    run_id: str | None
    attempt: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class CombinedIds:
    """More than 64 dependency ids: their number and one SHA-256 over them, sorted."""

    count: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CombinedRecords:
    """More than 64 dependency records: their number, one SHA-256 over them sorted by id, their lineage digest."""

    count: int
    sha256: str
    lineage: str | None


Dependencies = tuple[str, ...] | CombinedIds
DependencyRecords = tuple[DependencyRecord, ...] | CombinedRecords


def lineage_digest(digests: Sequence[bytes]) -> bytes:
    """Return the SHA-256 over the dependencies' result digests (32 bytes each) in declared order."""
    return hashlib.sha256(b"".join(digests)).digest()


def lineage_of(records: DependencyRecords | None) -> bytes | None:
    """Return the lineage digest that dependency records stand for, or None if any result digest is unknown."""
    if records is None:
        return None
    if isinstance(records, CombinedRecords):
        return None if records.lineage is None else bytes.fromhex(records.lineage)
    digests = [record.sha256 for record in records if record.sha256 is not None]
    if len(digests) < len(records):
        return None
    return lineage_digest([bytes.fromhex(digest) for digest in digests])


def listed_ids(ids: Sequence[str]) -> Dependencies:
    """Return declared dependency ids in the form that a header keeps."""
    if len(ids) <= MOST_LISTED:
        return tuple(ids)
    return CombinedIds(len(ids), _digest_of(sorted(ids)))


def listed_records(ids: Sequence[str], records: Sequence[DependencyRecord]) -> DependencyRecords:
    """Return the records of the dependencies `ids`, in the same order, in the form that a header keeps."""
    if len(ids) != len(records):
        raise ValueError(f"{len(ids)} dependencies have {len(records)} records; each must have one.")
    if len(ids) <= MOST_LISTED:
        return tuple(records)
    lineage = lineage_of(tuple(records))
    rows = sorted(
        [name, record.run_id, record.attempt, record.sha256] for name, record in zip(ids, records, strict=True)
    )
    return CombinedRecords(len(ids), _digest_of(rows), None if lineage is None else lineage.hex())


def same_dependencies(stored: Dependencies, declared: Sequence[str]) -> bool:
    """Tell whether a header names the dependencies that are declared now, in whatever order."""
    if isinstance(stored, CombinedIds):
        return listed_ids(declared) == stored
    return stored == tuple(declared) or sorted(stored) == sorted(declared)


def changed_dependency(
    declared: Sequence[str],
    stored_ids: Dependencies | None,
    stored: DependencyRecords | None,
    present: Mapping[str, DependencyRecord],
) -> str | None:
    """Return the id of a dependency whose present record is another than the one that was used, or None.

    `declared` are the task's dependencies, `stored_ids` and `stored` what its header says, `present` the records
    that stand now. What is unknown on either side counts as equal. For combined records the answer is ``"one of N
    dependencies"``.
    """
    if stored is None:
        return None
    if isinstance(stored, CombinedRecords):
        return _changed_among_many(declared, stored, present)
    ids = stored_ids if isinstance(stored_ids, tuple) else tuple(declared)
    for name, record in zip(ids, stored, strict=False):
        now = present.get(name)
        if now is not None and now != record and _is_another(record, now):
            return name
    return None


def _changed_among_many(
    declared: Sequence[str], stored: CombinedRecords, present: Mapping[str, DependencyRecord]
) -> str | None:
    records = [present[name] for name in declared if name in present]
    if len(records) < len(declared):
        return None
    # A worker knows the digests of dependency results alone: where that is what was combined, it is what is compared.
    by_digest = [DependencyRecord(None, None, record.sha256) for record in records]
    if stored in (listed_records(declared, records), listed_records(declared, by_digest)):
        return None
    return f"one of {stored.count} dependencies"


def _is_another(used: DependencyRecord, now: DependencyRecord) -> bool:
    pairs = ((used.run_id, now.run_id), (used.attempt, now.attempt), (used.sha256, now.sha256))
    return any(a is not None and b is not None and a != b for a, b in pairs)


def _digest_of(rows: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode("ascii")).hexdigest()
