"""Have computed again what a client finds lost of a run, when it takes a result or proves it at the end.

The result and all that was computed from it are invalidated, and what failed for want of it is retried. An input that
a worker lacks while the run goes on is none of a client's business: the scheduler has it computed again
(`core.repairs`), whoever follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from overnight.core.repairs import MOST_REPAIRS
from overnight.core.states import SUCCEEDED, TaskState
from overnight.errors import BadSeal, InputLost
from overnight.keyring import Keyring
from overnight.messages import StoredError
from overnight.store.ports import ReadingStore, SubmittingStore
from overnight.store.records import TaskView
from overnight.structure import Structure

_FAILED: Final = bytes((TaskState.FAILED,))
_INPUT_LOST: Final = f"{InputLost.__module__}.{InputLost.__qualname__}"


class MendingStore(ReadingStore, SubmittingStore, Protocol):
    """What is read and, where something is missing, repaired."""


class Mending:
    """Repairs one run. Methods raise UnknownRun and Unreachable, and may be repeated."""

    def __init__(self, store: MendingStore, run_id: str, keyring: Keyring) -> None:
        self._store = store
        self._run_id = run_id
        self._keyring = keyring
        self._repairs: Counter[int] = Counter()

    def compute_again(self, lost: Iterable[int], *, retries: bool = False) -> list[int]:
        """Invalidate what of `lost` is on record as finished, with all that is computed from it; return these.

        `retries`: what failed for want of it runs again too.
        """
        codes = self._codes()
        finished = _finished(codes)
        structure = self._structure()
        gone = [task for task in lost if task in finished]
        if retries:
            below = structure.with_descendants(gone)
            self._retry(self._wanting([task for task in below if codes[task : task + 1] == _FAILED]))
        return self._invalidate(structure, gone)

    def run_once_more(self, failed: Sequence[int]) -> list[int]:
        """Let these failed tasks run again, but for those that did too often; return them."""
        again = [task for task in failed if self._repairs[task] < MOST_REPAIRS]
        self._retry(again)
        return again

    def _retry(self, tasks: list[int]) -> None:
        """Retry before results are invalidated, so that a repair which is cut off here is done again."""
        if tasks:
            self._repairs.update(tasks)
            self._store.mend(self._run_id, tasks)

    def _invalidate(self, structure: Structure, gone: Sequence[int]) -> list[int]:
        """Those in flight too: what they compute from is gone, and no success of theirs is accepted any more."""
        again = structure.with_descendants(gone) if gone else []
        self._store.invalidate(self._run_id, again)
        return again

    def _wanting(self, failed: Sequence[int]) -> list[int]:
        """Return those that failed for want of an input, and not too often."""
        due = [task for task in failed if self._repairs[task] < MOST_REPAIRS]
        views = self._store.tasks(self._run_id, due) if due else []
        return [view.task for view in views if self._lacks_input(view)]

    def _lacks_input(self, view: TaskView) -> bool:
        try:
            error = view.error and StoredError.opened(view.error, self._run_id, view.task, self._keyring)
        except BadSeal:
            return False
        return isinstance(error, StoredError) and error.type_name == _INPUT_LOST

    def _codes(self) -> bytes:
        return self._store.states(self._run_id)[::2]

    def _structure(self) -> Structure:
        return Structure(self._run_id, self._store.specs(self._run_id), self._keyring)


def _finished(codes: bytes) -> set[int]:
    return {task for task, code in enumerate(codes) if TaskState(code) in SUCCEEDED}
