"""What is recorded of many tasks at once, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from overnight.store.memory_reading import MemoryReading


class MemoryRecords(MemoryReading):
    """The part of the `ReadingStore` that reads one kind of record of many tasks, in memory."""

    def read_tail(self, instance: str) -> bytes:
        """Return the sealed last lines of the task that a worker runs; empty for none."""
        with self._step():
            return self.data.tails.get(instance, b"")

    def read_facts(self, run_id: str, tasks: Sequence[int]) -> dict[int, bytes]:
        """Return the facts of the tasks' last accepted reports, as JSON; missing ones are left out."""
        with self._step():
            accepted = self._known(run_id).accepted
            return {task: accepted[task].facts for task in tasks if task in accepted}

    def read_errors(self, run_id: str, tasks: Sequence[int]) -> dict[int, bytes]:
        """Return the sealed errors of the tasks' last failures; missing ones are left out."""
        with self._step():
            errors = self._known(run_id).errors
            return {task: errors[task] for task in tasks if task in errors}

    def read_causes(self, run_id: str, tasks: Sequence[int]) -> dict[int, int]:
        """Return for skipped tasks the failed ancestor; others are left out."""
        with self._step():
            causes = self._known(run_id).causes
            return {task: causes[task] for task in tasks if task in causes}

    def read_certificates(self, run_id: str, tasks: Sequence[int]) -> dict[int, list[bytes]]:
        """Return the sealed death certificates of the tasks' latest failed attempts, in no order."""
        with self._step():
            wanted, found = set(tasks), self._known(run_id).deaths
            by_task: dict[int, list[bytes]] = {}
            for (task, _slot), record in found.items():
                if task in wanted:
                    by_task.setdefault(task, []).append(record)
            return by_task
