"""The schema of the server: every key declared once, with its type, what it holds and how long it lives.

All keys of a deployment share one prefix that is a hash tag (``{overnight}``), so that a cluster keeps them in one slot
and two deployments can share a server. Keys of a run carry the run's id and nothing of a user's: tasks are indices,
graph keys and places are fields of a hash.

Every key has a lifetime. Keys of a run that is not over live `UNTOUCHED_SECONDS` after they were last used, renewed at
most once an hour; those of an ended run live as long as its `keep_seconds` say. Shared keys live at least as long as
the run that lives longest. The order of the two tables is the order of KEYS in every script.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from overnight.errors import UnknownRun

SCHEMA: Final = 1
#: How long a run that is not over, and what all runs share, is kept without any use.
UNTOUCHED_SECONDS: Final = 30 * 24 * 3600
_RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,100}")


def is_run_id(text: str) -> bool:
    """Tell whether a text can be the id of a run, and so a part of a key."""
    return _RUN_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Key:
    """One kind of key: the end of its name, its type on the server and what it holds."""

    name: str
    type: str
    content: str


#: What all runs share.
SHARED_KEYS: Final = (
    Key("runs", "zset", "run id -> second at which its keys expire: all runs that are kept"),
    Key("runs:active", "set", "ids of the runs that are not over"),
    Key("runs:graphs", "hash", "graph key -> id of the active run of that graph"),
    Key("runs:places", "hash", "place -> id of the active run that uses it"),
    Key("control", "stream", "one entry for each change of the set of active runs, the latest 1,000"),
    Key("leases", "zset", "'run batch' -> deadline, second of the server's clock"),
    Key("scheduler", "hash", "the scheduler lease: number, holder, description, deadline; and the schema number"),
    Key("workers", "zset", "worker instance -> second at which its registration ends"),
    Key("workers:records", "hash", "worker instance -> 'seen_at JSON'"),
    Key("workers:tails", "hash", "worker instance -> sealed last lines of the task that it has been running for long"),
    Key("durations", "hash", "function name -> JSON [seconds, observations]"),
    Key(
        "quarantine",
        "hash",
        "host -> JSON: until (second; 0: not in quarantine), evidence ('run task' -> second)",
    ),
)
#: What each run has.
RUN_KEYS: Final = (
    Key(
        "meta",
        "hash",
        "record (JSON), keep, phase, paused, added, open, sequence, dispatched, invalidations, retried, note, times, "
        "rested, made, staging",
    ),
    Key("context", "string", "the sealed RunContext"),
    Key("specs", "hash", "first task -> sealed SpecChunk"),
    Key("messages", "hash", "task -> sealed TaskMessage"),
    Key("blobs", "hash", "hex digest -> sealed function, argument or large result"),
    Key("states", "string", "two bytes a task: code of its state, attempt"),
    Key("digests", "string", "32 bytes a task: digest of its result, zeros: none"),
    Key("results", "hash", "task -> sealed StoredResult"),
    Key("errors", "hash", "task -> sealed StoredError of its last failure"),
    Key("facts", "hash", "task -> 'batch+' or 'batch-' of the last accepted report, newline, JSON for people"),
    Key("charges", "hash", "task -> 'failures losses not_before begun'"),
    Key("causes", "hash", "skipped task -> the failed ancestor"),
    Key(
        "inflight",
        "hash",
        "task -> 'batch', newline, expected lineage, or '?' and the tasks whose results it lacked, or '!': it computes "
        "from what was invalidated; from DISPATCH until the task is terminal",
    ),
    Key("batches", "hash", "batch -> JSON: queue, tasks; from DISPATCH until no task of it is left"),
    Key("holds", "hash", "claimed batch -> on a line each: instance, sequence, mark of each task, task that has begun"),
    Key("events", "stream", "what happened to the run, the latest 100,000"),
    Key("deaths", "hash", "'task slot' -> sealed DeathCertificate of a failed attempt; slot is attempt % 8"),
    Key("repairs", "hash", "task -> how often its result was lost and is computed again for those that need it"),
)
_SHARED_TYPES = {key.name: key.type for key in SHARED_KEYS}
_RUN_TYPES = {key.name: key.type for key in RUN_KEYS}


class Keys:
    """The names of one deployment's keys."""

    def __init__(self, prefix: str) -> None:
        self.prefix = f"{{{prefix}}}"
        self._shared = tuple(f"{self.prefix}:{key.name}" for key in SHARED_KEYS)

    def shared(self, name: str) -> str:
        """Return the full name of a key that all runs share."""
        return f"{self.prefix}:{name}"

    def of_run(self, run_id: str, name: str) -> str:
        """Return the full name of a key of a run; UnknownRun if that cannot be a run's id."""
        if not is_run_id(run_id):
            raise UnknownRun(f"{run_id!r} cannot be the id of a run.")
        return f"{self.prefix}:run:{run_id}:{name}"

    def run_of(self, key: str) -> str | None:
        """Return the run that a key belongs to, None for one that all runs share."""
        start = f"{self.prefix}:run:"
        return key[len(start) :].partition(":")[0] if key.startswith(start) else None

    def type_of(self, key: str) -> str | None:
        """Return the type that a key has on the server, None for one that is not in the schema."""
        run_id = self.run_of(key)
        start = f"{self.prefix}:" if run_id is None else f"{self.prefix}:run:{run_id}:"
        types = _SHARED_TYPES if run_id is None else _RUN_TYPES
        return types.get(key[len(start) :]) if key.startswith(start) else None

    def for_shared_script(self) -> tuple[str, ...]:
        """Return the KEYS of a script that touches no run."""
        return self._shared

    def for_run_script(self, run_id: str) -> tuple[str, ...]:
        """Return the KEYS of a script that touches a run."""
        start = self.of_run(run_id, "")
        return self._shared + tuple(start + key.name for key in RUN_KEYS)
