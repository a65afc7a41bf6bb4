"""What is lost is forgotten, or put back where it is known, on a server: INVALIDATE and RESTORE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overnight.store import scripts
from overnight.store.codec import chunks, packed_tasks
from overnight.store.records import Epoch
from overnight.store.redis_reading import RedisReading
from overnight.store.redis_server import check_known, check_not_busy, fence
from overnight.store.scripts import MOST_TASKS


class RedisRepairing(RedisReading):
    """The part of the ports that mends what was lost."""

    def restore_digests(self, run_id: str, digests: Mapping[int, bytes]) -> None:
        """RESTORE: put lost digests of finished tasks back."""
        for piece in chunks(list(digests.items()), MOST_TASKS):
            cells = [part for cell in piece for part in cell]
            check_known(self.server.send(self.server.on_run(scripts.RESTORE, run_id, *cells)), run_id)

    def invalidate(self, run_id: str, tasks: Sequence[int]) -> list[int]:
        """INVALIDATE: finished tasks become PENDING. Return those that did."""
        changed: list[int] = []
        for piece in chunks(list(dict.fromkeys(tasks)), MOST_TASKS):
            reply = self.server.send(self.server.on_run(scripts.INVALIDATE, run_id, "", "", "", "", *piece))
            check_known(reply[0], run_id)
            check_not_busy(reply, run_id)
            changed += reply[2:]
        return changed

    def repair(
        self, epoch: Epoch, run_id: str, lost: Sequence[int], tasks: Sequence[int], invalidations: int
    ) -> int | None:
        """INVALIDATE by a scheduler: see the port. Each piece is refused by what happened since the one before."""
        heard, lost_ones = invalidations, set(lost)
        for piece in chunks(list(dict.fromkeys(tasks)), MOST_TASKS):
            counted = packed_tasks([task for task in piece if task in lost_ones])
            reply = self.server.send(
                self.server.on_run(scripts.INVALIDATE, run_id, *fence(epoch), heard, counted, *piece)
            )
            check_known(reply[0], run_id)
            if reply[0] == b"stale":
                return None
            heard = int(reply[1])
        return heard
