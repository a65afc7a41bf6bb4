"""What is known of a world: what ran, what was accepted, what was damaged, and what flags and server hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overnight.errors import BadSeal
from overnight.flags import DONE, Flag, check_place, decode_flag, decode_head
from overnight.keyring import Keyring
from overnight.naming import flag_name
from overnight.pickling import loads
from overnight.store.memory_data import MemoryRun
from overnight.structure import Structure
from tests.support.simulation.world import Violation, World

if TYPE_CHECKING:
    from tests.support.simulation.server import Server

KEYRING = Keyring()


@dataclass(slots=True)
class Evidence:
    """The facts of one world. `directory` holds the flags, if there are any; `dependencies` are the graph's edges."""

    world: World
    directory: Path | None
    dependencies: dict[str, list[str]]
    retries: dict[str, int]
    server: Server = field(init=False)
    executions: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    child_kills: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    #: Of these, those before which the task was known to have begun: a worker that freezes between its sign and the
    #: function's first line has begun it too (decision 0033).
    begun_losses: Counter[str] = field(default_factory=Counter)
    #: Nonces that were ever accepted, or adopted from flags.
    accepted: set[str] = field(default_factory=set)
    damaged: dict[str, float] = field(default_factory=dict)
    #: How often a flag or what is recorded of a result was damaged or lost at rest.
    strikes: Counter[str] = field(default_factory=Counter)
    #: What stood in flags, by task.
    former: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    #: The last command, given when all is quiet, must mend everything.
    is_final: bool = False
    #: Somebody asked for some tasks of a run to be tried again, not for all.
    is_partly_retried: bool = False
    #: Somebody asked for a run to be cancelled.
    was_cancelled: bool = False
    #: The run that ended last: people may have an earlier one tried again when a later one has ended.
    last_ended: str = ""
    #: Batches that a server still held which fell back: they carry no mark to look for flags first.
    _fallen_back: set[str] = field(default_factory=set)
    _batch_of: dict[str, str] = field(default_factory=dict)
    #: The tasks of which an outcome was accepted, or that went back or were reaped, by batch.
    _through_with: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    _placed_at: dict[str, float] = field(default_factory=dict)
    #: Instances of workers -> actors.
    _owners: dict[str, str] = field(default_factory=dict)
    _dead: set[str] = field(default_factory=set)
    _claimed_at: dict[str, float] = field(default_factory=dict)
    _values: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    _names: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _rejected_core: Counter[str] = field(default_factory=Counter)
    _flags: dict[str, str] = field(default_factory=lambda: defaultdict(str))

    def _fail(self, invariant: str, text: str) -> None:
        self.world.note(None, f"{invariant}: {text}")
        self.world.broken = self.world.broken or Violation(f"{invariant}: {text}")

    def _runs(self) -> dict[str, MemoryRun]:
        return self.server.data.runs

    def _ids(self, run: MemoryRun) -> list[str]:
        key = (run.record.run_id, run.record.made)
        if key not in self._names:
            specs = [run.specs[first] for first in sorted(run.specs)]
            self._names[key] = list(Structure(run.record.run_id, specs, KEYRING).ids())
        return self._names[key]

    def _name(self, run: MemoryRun, task: int) -> str:
        return self._ids(run)[task]

    def flag(self, task_id: str) -> Flag | None:
        """Return the flag of a task that is to be believed."""
        if self.directory is None:
            return None
        try:
            return decode_flag((self.directory / flag_name(task_id)).read_bytes(), task_id, KEYRING)
        except (OSError, BadSeal):
            return None

    def has_header(self, task_id: str) -> bool:
        """Tell whether the head of a task's flag is to be believed, whatever its body."""
        if self.directory is None:
            return False
        path = self.directory / flag_name(task_id)
        try:
            header, offset = decode_head(path.read_bytes(), KEYRING)
            check_place(header, offset, task_id, path.stat().st_size)
        except (OSError, BadSeal):
            return False
        return header.state == DONE

    def _standing(self, task_id: str) -> str | None:
        """Return what made the result that a flag proves: a worker that finds it commits it first."""
        flag = self.flag(task_id)
        return None if flag is None or flag.header.state != DONE else str(loads(flag.body)["nonce"])

    def _stood_at_the_claim(self, worker: str, task_id: str, nonce: str) -> bool:
        """Tell whether a flag that was damaged since this worker claimed its batch had proved the result until then."""
        if self.damaged.get(task_id, 0.0) < self._claimed_at.get(worker, 0.0):
            return False
        return nonce in map(self._proved_by, self.former[task_id], repeat(task_id))

    def _proved_by(self, data: bytes, task_id: str) -> str | None:
        try:
            flag = decode_flag(data, task_id, KEYRING)
        except BadSeal:
            return None
        return str(loads(flag.body)["nonce"]) if flag.header.state == DONE else None

    @property
    def has_forgotten(self) -> bool:
        """Tell whether what a client was told may have been computed again: the server fell back, and no flag stood."""
        return self.directory is None and bool(self.server.rollbacks)

    @property
    def may_leave_tasks(self) -> bool:
        """Tell whether whoever watches a run may see it end with tasks that never ran.

        It was cancelled and then retried in part, or the server forgot that, when some tasks had been cancelled.
        """
        return self.is_partly_retried or (self.was_cancelled and bool(self.server.rollbacks))

    def _was_damaged(self, task_id: str) -> bool:
        is_struck = task_id in self.damaged or self.strikes[task_id] > 0
        return is_struck or any(self._was_damaged(name) for name in self.dependencies[task_id])
