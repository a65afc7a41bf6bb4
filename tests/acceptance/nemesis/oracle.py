"""What must hold of one graph, judged from ledger and flags (ADVERSITY P1 to P5, P11, P12).

Every few seconds the ledger's new lines and the flags' headers are read. A flag that has been seen with its value is a
proof: after that moment no execution with the same inputs may start (P3). An execution may start only from values that
have been computed before (P5), and at the end every recorded value is the one of some execution, sound, and computed
from exactly the values that are recorded of its dependencies (P2, P4, P12).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from overnight.core.retry import LEAST_BEGUN, MOST_LOSSES, MOST_LOSSES_UNBEGUN
from overnight.errors import BadSeal
from overnight.flag_files import began_later, open_flag, read_headers
from overnight.flags import DONE
from overnight.keyring import Keyring
from overnight.naming import flag_name
from overnight.pickling import loads
from overnight.service.perform import LOST_TOO_OFTEN
from tests.acceptance.nemesis.load import ALWAYS, Value
from tests.acceptance.nemesis.rounds import Round

#: A start so soon after a flag was seen may have been decided before.
SLACK_SECONDS = 0.3


@dataclass(frozen=True)
class Proof:
    """A flag that has been seen: the digest of its body, the value in it, when it was seen (monotonic), its run."""

    digest: str
    value: Value
    seen_at: float
    run_id: str


class Oracle:
    """The judge of one round. `excuses` tells whether a fault lets the worker `pid` start late at a moment."""

    def __init__(
        self,
        judged: Round,
        clock: Callable[[], float],
        excuses: Callable[[int, float, float], bool],
        violated: Callable[[str], None],
    ) -> None:
        self._round = judged
        self._clock = clock
        self._excuses = excuses
        self._violated = violated
        self._offset = 0
        self._ended: set[tuple[str, str]] = set()
        self._tampered: set[str] = set()
        self._runs: set[str] = set()
        self._late_starts: list[tuple[Proof, float, str]] = []
        self.proofs: dict[str, Proof] = {}
        self.workers: Counter[int] = Counter()
        self.starts: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def look(self, keyring: Keyring) -> None:
        """Judge what has happened since the last look. The ledger comes first, so that no proof is younger than it."""
        self._read_ledger()
        wanted = [(task_id, flag_name(task_id)) for task_id in self._round.plans]
        for task_id, found in read_headers(self._round.flags, wanted, keyring):
            if isinstance(found, BadSeal) or found.header.state != DONE:
                continue
            self._runs.add(found.header.run_id or "")
            proof = self.proofs.get(task_id)
            if proof is None or proof.digest != found.header.body_sha256:
                self._new_proof(task_id, keyring)

    def forget(self, task_id: str) -> None:
        """A flag is about to be tampered with: it proves nothing any more."""
        self._read_ledger()
        self.proofs.pop(task_id, None)
        self._tampered.add(task_id)

    # The ledger.

    def _read_ledger(self) -> None:
        if not self._round.ledger.exists():
            return
        with self._round.ledger.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for line in data[:whole].splitlines():
            self._judge(json.loads(line))

    def _judge(self, line: dict[str, Any]) -> None:
        task_id, inputs = line["id"], tuple(line["inputs"])
        self.workers[line["worker"]] += 1
        if line["event"] == "end":
            self._ended.add((task_id, line["hash"]))
            return
        self.starts[task_id] += 1
        for dep, used in zip(self._round.plans[task_id].deps, inputs, strict=True):
            if (dep, used) not in self._ended:
                self._violated(f"P5: {task_id} started from a value of {dep} that nothing has computed")
        proof = self.proofs.get(task_id)
        if proof is None or proof.value.inputs != inputs or line["at"] < proof.seen_at + SLACK_SECONDS:
            return
        if self._excuses(line["worker"], proof.seen_at, line["at"]):
            self.counts["excused starts"] += 1
        else:
            after = line["at"] - proof.seen_at
            text = f"P3: {task_id} started again {after:.1f} s after its flag was seen, nonce {line['nonce']}"
            self._late_starts.append((proof, line["at"], text))

    def judge_starts(self) -> None:
        """Judge starts after a flag of the task was seen, now that all runs of the round are known.

        A worker of a run that was cancelled may put its flag in place after the next run of the command has looked:
        that one has the task run, as it was decided for, unless its command is given again.
        """
        late, self._late_starts = self._late_starts, []
        for proof, at, text in late:
            if any(began_later(run_id, proof.run_id) and self._began(run_id) <= at for run_id in self._runs):
                self.counts["starts beside a late flag"] += 1
            else:
                self._violated(text)

    def _began(self, run_id: str) -> float:
        """Return when a run began, by this host's monotonic clock."""
        began = datetime.strptime(run_id[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
        return began.timestamp() - time.time() + self._clock()

    # The flags.

    def _new_proof(self, task_id: str, keyring: Keyring) -> None:
        recorded = self._recorded(task_id, keyring)
        if recorded is None:
            return
        before = self.proofs.get(task_id)
        if before is not None and before.value.inputs == recorded.value.inputs:
            self.counts["replaced flags"] += 1
        self.proofs[task_id] = recorded
        self._read_ledger()
        self._check_executed(recorded.value)

    def _check_executed(self, value: Value) -> None:
        if (value.task_id, value.hash) not in self._ended:
            self._violated(f"P2: the value recorded of {value.task_id} is that of no execution")

    def _recorded(self, task_id: str, keyring: Keyring) -> Proof | None:
        try:
            flag = open_flag(self._round.flags / flag_name(task_id), task_id, keyring)
        except (OSError, BadSeal):
            return None
        if flag.header.state != DONE:
            return None
        value = loads(flag.body)
        if not isinstance(value, Value) or value.task_id != task_id or not value.is_sound():
            self._violated(f"P12: the flag of {task_id} holds a value that is not its own: {value!r:.200}")
            return None
        value = replace(value, padding=b"")
        return Proof(flag.header.body_sha256, value, self._clock(), flag.header.run_id or "")

    # The end.

    def judge_end(self, status: int, facts: dict[str, Any] | None, keyring: Keyring) -> bool:
        """Judge a client that has ended by itself with 0 or 1; tell whether the round is done."""
        self.look(keyring)
        expected = int(self._round.failing)
        if status == 1:
            strange = self._strange_failures(facts)
            if strange is None or strange:
                return False
        if status != expected:
            self._violated(f"P11: exit status {status}, expected {expected}: {facts}")
        return self._is_whole(keyring)

    def _strange_failures(self, facts: dict[str, Any] | None) -> list[str] | None:
        """The failed tasks that are no failing ones by plan; None if the client said nothing."""
        if facts is None or "failed" not in facts:
            return None
        strange = []
        for failed in facts["failed"]:
            task_id = failed["task"]
            if self._round.plans[task_id].kind == ALWAYS:
                continue
            strange.append(task_id)
            is_lost = failed["type"] == "TaskDied" and LOST_TOO_OFTEN in failed["message"]
            if not is_lost or not self._may_be_poison(task_id, failed["attempts"]):
                self._violated(f"P10: {task_id} failed after {self.starts[task_id]} starts with {failed}")
            self.counts["poisoned"] += 1
        return strange

    def _may_be_poison(self, task_id: str, attempts: int) -> bool:
        """A claim may be lost before its task starts: that is no evidence against the task, unless it never ends."""
        has_begun = self.starts[task_id] >= LEAST_BEGUN and attempts >= MOST_LOSSES
        return has_begun or attempts >= MOST_LOSSES_UNBEGUN

    def _is_whole(self, keyring: Keyring) -> bool:
        """Check what is recorded; False if something is missing that was tampered with while its client ended."""
        values: dict[str, Value] = {}
        tampered, self._tampered = self._tampered, set()
        for task_id in self._round.plans:
            recorded = self._recorded(task_id, keyring)
            if task_id in self._round.unreachable:
                if recorded is not None:
                    self._violated(f"P11: {task_id} cannot succeed and has a result")
            elif recorded is not None:
                values[task_id] = recorded.value
                self._check_executed(recorded.value)
            elif task_id in tampered:
                return False
            else:
                self._violated(f"P1: the run is over and {task_id} has no flag")
        for task_id, value in values.items():
            deps = self._round.plans[task_id].deps
            if value.inputs != tuple(values[dep].hash for dep in deps if dep in values):
                self._violated(f"P4: {task_id} was computed from other values than those that are recorded")
        return True
