"""The final audit: before a run is reported as succeeded, every recorded result is shown to be there.

With a status directory each finished task's flag is opened: seal, id, digest, length. A flag that is missing or damaged
is written again from Redis, if Redis still has the result with that digest; otherwise the task and everything that was
computed from it are invalidated, and the run goes on. Without a status directory the result must be where Redis says.

Nobody calls lost what he may not look at: a result that this process may not read is believed as recorded. So are all
of a run that somebody only watches, perhaps on another machine or as another user, who has no access to its directory.

A flag that is proven may be replaced after that: by a worker which still carries out a run that the server has lost,
while its results were adopted. So the audit at the end looks at each file once more, by its identity.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from overnight.core.states import SUCCEEDED, TaskState
from overnight.errors import BadSeal, UnknownRun, Unreachable
from overnight.flag_files import FileIdentity, identified_flag, standing_flags
from overnight.keyring import Keyring
from overnight.mending import Mending, MendingStore
from overnight.messages import StoredResult
from overnight.naming import flag_name, shown
from overnight.results import ResultLost, ResultOutOfReach, Results
from overnight.run_flags import Outdated, RunFlags
from overnight.store.codec import NO_DIGEST
from overnight.structure import Structure

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Findings:
    """What an audit found: how many results are proven; flags written again, flags that could not be; tasks lost; those
    whose results are out of reach from here; those that were run again while this audit went on.

    `over`: nothing is lost or outdated, and nobody has reopened the run. Where something is lost, the run goes on,
    unless the server has lost that it was invalidated: then the next audit finds it lost again.
    """

    proven: int = 0
    rewritten: list[int] = field(default_factory=list)
    unwritten: list[int] = field(default_factory=list)
    unseen: list[int] = field(default_factory=list)
    outdated: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    invalidated: list[int] = field(default_factory=list)
    over: bool = True


class Audit:
    """Audits one run. It may be called while the run goes on: what is proven is not read again while its file stands.

    `retries`: what failed for want of a lost result runs again too. Who has given failures out does without. `owns`:
    the run is this process's own, whose status directory it has made: if that is gone, so are the records. `seen`
    are the digests of results that this process has taken out of the store, whole: without a status directory they are
    proven while the store names the same.
    """

    def __init__(
        self,
        store: MendingStore,
        run_id: str,
        keyring: Keyring,
        status_dir: str | None,
        *,
        retries: bool = False,
        owns: bool = True,
        seen: Mapping[int, bytes] | None = None,
    ) -> None:
        self._store = store
        self._seen = {} if seen is None else seen
        self._retries = retries
        self._owns = owns
        self._run_id = run_id
        self._keyring = keyring
        self._directory = Path(status_dir) if status_dir and "://" not in status_dir else None
        self._flags: RunFlags | None = None
        self._results = Results(store, run_id, keyring)
        self._mending = Mending(store, run_id, keyring)
        self._structure = Structure(run_id, (), keyring)
        #: Finished tasks whose results were seen, and by which files; None: by none that could be replaced.
        self._proven: dict[int, FileIdentity | None] = {}

    def look_ahead(self, recorded: Mapping[int, str]) -> None:
        """Look at results that are on record by now, given as index -> id, so that little is left for the end."""
        with suppress(Unreachable, UnknownRun):  # the audit at the end looks again
            self._unproven(list(recorded), recorded.__getitem__)

    def forget(self, task: int) -> None:
        """Look at the result of a task again: the one that was proven has been invalidated."""
        self._proven.pop(task, None)

    def run(self) -> Findings:
        """Look at every finished task; repair what can be repaired, invalidate the rest.

        Raises UnknownRun if the server has lost what tasks there are: the flags still know what is finished.
        """
        self._structure = Structure(self._run_id, self._store.specs(self._run_id), self._keyring)
        if not self._structure.holds(self._store.run(self._run_id).added):
            raise UnknownRun(f"The server has lost what tasks run {self._run_id} has.")
        if self._directory is not None:
            self._flags = RunFlags(self._store, self._run_id, self._structure, self._keyring, self._directory)
        codes = self._store.states(self._run_id)[::2]
        finished = [task for task, code in enumerate(codes) if code in SUCCEEDED]
        findings = Findings()
        if self._is_blind():
            findings.unseen = finished
            findings.over = self._store.run(self._run_id).phase.is_over
            return findings
        self._doubt_replaced()
        pending = self._unproven([task for task in finished if task not in self._proven], self._structure.task_id)
        stored = self._results.stored(pending)
        for task in pending:
            self._look_at(task, stored.get(task), findings)
        findings.proven = len(self._proven)
        if self._flags is not None:
            self._flags.write_failures([task for task, code in enumerate(codes) if code == TaskState.FAILED])
        if findings.lost:
            again = self._mending.compute_again(findings.lost, retries=self._retries)
            for task in again:
                self.forget(task)
            findings.invalidated = sorted(set(finished).intersection(again))
            number = len(findings.invalidated)
            _logger.warning("run %s: %d results are lost and will be computed again", self._run_id, number)
        is_stable = not findings.lost and not findings.outdated
        findings.over = is_stable and self._store.run(self._run_id).phase.is_over
        return findings

    def _look_at(self, task: int, stored: StoredResult | ResultLost | None, findings: Findings) -> None:
        if self._flags is not None and self._flags.is_superseded(task):
            self._proven[task] = None
            return
        if not isinstance(stored, StoredResult):
            task_id, why = shown(self._structure.task_id(task)), stored or "nothing is recorded of it"
            _logger.warning("run %s: the result of task %s is lost: %s", self._run_id, task_id, why)
            findings.lost.append(task)
            return
        if self._directory is None and stored.body is not None:
            self._proven[task] = None
            return
        try:
            body = self._results.body(stored, self._structure.task_id(task))
        except ResultOutOfReach:
            findings.unseen.append(task)
            self._proven[task] = None
            return
        except ResultLost as error:
            _logger.warning("run %s: %s", self._run_id, error)
            findings.lost.append(task)
            return
        try:
            if self._flags is not None:
                (findings.rewritten if self._flags.write_result(task, body) else findings.unwritten).append(task)
        except Outdated:
            findings.outdated.append(task)
            return
        self._proven[task] = None

    def _is_blind(self) -> bool:
        """Tell whether this process only watches, and cannot see and mend what is in the status directory."""
        if self._owns or self._directory is None:
            return False
        return not os.access(self._directory, os.R_OK | os.W_OK | os.X_OK)

    def _unproven(self, finished: list[int], id_of: Callable[[int], str]) -> list[int]:
        """Note those as proven of which the recorded digest is also that of the flag, or was seen; return the rest."""
        recorded = self._store.read_digests(self._run_id, finished) if finished else []
        rest = []
        for task, digest in zip(finished, recorded, strict=True):
            found, identity = self._found(task, id_of)
            if digest != NO_DIGEST and digest == found:
                self._proven[task] = identity
            else:
                rest.append(task)
        return rest

    def _found(self, task: int, id_of: Callable[[int], str]) -> tuple[bytes | None, FileIdentity | None]:
        """Return the digest of the result that is there, and of which file it is."""
        if self._directory is None:
            return self._seen.get(task), None
        task_id = id_of(task)
        try:
            flag, identity = identified_flag(self._directory / flag_name(task_id), task_id, self._keyring)
        except (OSError, BadSeal):
            return None, None
        return bytes.fromhex(flag.header.body_sha256), identity

    def _doubt_replaced(self) -> None:
        """Take those for unproven whose files are not there any more."""
        gone = {identity: task for task, identity in self._proven.items() if identity is not None}
        if not gone or self._directory is None:
            return
        try:
            for identity in standing_flags(self._directory, {identity.inode for identity in gone}):
                gone.pop(identity, None)
        except FileNotFoundError:
            pass  # the directory is gone, and all that is in it
        except OSError:
            return
        for task in gone.values():
            self.forget(task)
