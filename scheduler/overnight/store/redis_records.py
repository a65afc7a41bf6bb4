"""What is recorded of many tasks at once, on a server: for those who tell people of a whole run."""

from __future__ import annotations

from collections.abc import Sequence

from overnight.certificates import KEPT_ATTEMPTS
from overnight.store.codec import of_known_form, unpacked_index, without_head
from overnight.store.redis_reading import RedisReading


class RedisRecords(RedisReading):
    """The part of the `ReadingStore` that reads one kind of record of many tasks, on a server."""

    def read_tail(self, instance: str) -> bytes:
        """Return the sealed last lines of the task that a worker runs; empty for none."""
        tail: bytes | None = self.server.send(("HGET", self.server.keys.shared("workers:tails"), instance))
        return tail or b""

    def read_facts(self, run_id: str, tasks: Sequence[int]) -> dict[int, bytes]:
        """Return the facts of the tasks' last accepted reports, as JSON; missing ones are left out."""
        found = self._read_hash(run_id, "facts", tasks)
        return {task: text for task, stored in found.items() if (text := without_head(stored)) is not None}

    def read_errors(self, run_id: str, tasks: Sequence[int]) -> dict[int, bytes]:
        """Return the sealed errors of the tasks' last failures; missing ones are left out."""
        return self._read_hash(run_id, "errors", tasks)

    @of_known_form
    def read_causes(self, run_id: str, tasks: Sequence[int]) -> dict[int, int]:
        """Return for skipped tasks the failed ancestor; others are left out."""
        return {task: unpacked_index(cause) for task, cause in self._read_hash(run_id, "causes", tasks).items()}

    def read_certificates(self, run_id: str, tasks: Sequence[int]) -> dict[int, list[bytes]]:
        """Return the sealed death certificates of the tasks' latest failed attempts, in no order."""
        fields = [f"{task} {slot}" for task in tasks for slot in range(KEPT_ATTEMPTS)]
        found = self._read_hash(run_id, "deaths", fields)
        by_task: dict[int, list[bytes]] = {}
        for field, record in found.items():
            by_task.setdefault(int(field.partition(" ")[0]), []).append(record)
        return by_task
