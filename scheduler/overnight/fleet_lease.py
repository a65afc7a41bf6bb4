"""A client's hold on the local processes of a state directory.

The lease is two locks: a shared one that says that a client is there, and one on the file with what it wants. Both
end with the client's process. The keeper is started with its lock in hand: whichever of many clients takes that lock
starts the only keeper.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from overnight.errors import Unreachable
from overnight.fleet_files import STOP, WAKE, FleetFiles
from overnight.keeper import DRAIN_SECONDS
from overnight.slots import SETTLED_SECONDS, slot_environment, spawn_detached
from overnight.state_dir import POLL_SECONDS, is_locked, last_line, open_log, try_lock, unlock

_ENDS_UNTIL_REFUSED = 3
_ALONE_SECONDS = 0.2

_logger = logging.getLogger(__name__)


class FleetLease:
    """Keeps the fleet for one client: as long as this is open and its process lives, the fleet does not end."""

    def __init__(
        self,
        files: FleetFiles,
        redis_url: str,
        *,
        place: int,
        wish: tuple[Path, int],
        keeper_command: Sequence[str],
        keeper_environment: Mapping[str, str],
        active_runs: Callable[[str], int],
        end_server: Callable[[], None],
    ) -> None:
        #: Where the server is; empty until it is known.
        self.redis_url = redis_url
        self._files = files
        self._wish_path, wish_lock = wish
        self._locks = [place, wish_lock]
        self._keeper_command = keeper_command
        self._keeper_environment = keeper_environment
        self._active_runs = active_runs
        self._end_server = end_server
        self._is_gone = False
        self._started_at = float("-inf")
        self._early_ends = 0
        _leases.add(self)

    def check(self) -> None:
        """Start a keeper if there is none; call it every few seconds.

        Raises Unreachable if keepers do not last, or if the directory is another one than this lease was taken in: then
        what runs is out of reach, and ends.
        """
        with self.in_place():
            self._see_in_place()
            lock = try_lock(self._files.keeper_lock)
            if lock is None:
                return
            try:
                self._see_that_keepers_last()
                self._start_keeper(lock)
            finally:
                os.close(lock)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Raise Unreachable where something of the directory is missing that was there."""
        try:
            yield
        except FileNotFoundError as error:
            self._is_gone = True
            self._end_server()
            raise Unreachable(
                f"The directory {self._files.directory} was removed or replaced while it was in use; the processes "
                "that worked there end. The same command goes on from what is recorded."
            ) from error

    def _see_in_place(self) -> None:
        """Raise FileNotFoundError if the locks of this lease are not those of its directory any more."""
        if self._locks and not os.path.samestat(os.fstat(self._locks[0]), self._files.clients_lock.stat()):
            raise FileNotFoundError(self._files.clients_lock)

    def close(self, *, stop: bool) -> None:
        """Give the fleet up; with `stop`, and if no other client and no active run uses it, end it and wait for that.

        May be repeated. Never raises for a fleet that cannot be ended: it ends by itself later.
        """
        if not self._locks:
            return
        self._wish_path.unlink(missing_ok=True)
        while self._locks:
            unlock(self._locks.pop())
        self._files.tell_keeper(WAKE)
        if stop and not self._is_gone:
            with suppress(FileNotFoundError):  # the directory was removed: the keeper ends all when it sees that
                self._stop_if_unused()

    def forget(self) -> None:
        """Drop the copies of the locks that a fork made: the child of a client is not a client."""
        while self._locks:
            with suppress(OSError):
                os.close(self._locks.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close(stop=False)

    def _see_that_keepers_last(self) -> None:
        lasted = time.monotonic() - self._started_at >= SETTLED_SECONDS
        self._early_ends = 0 if lasted else self._early_ends + 1
        if self._early_ends >= _ENDS_UNTIL_REFUSED:
            line = last_line(self._files.keeper_log)
            raise Unreachable(f"The keeper of {self._files.directory} ends as soon as it is started: {line}")

    def _start_keeper(self, lock: int) -> None:
        os.ftruncate(lock, 0)
        environment = {**self._keeper_environment, **slot_environment(lock, self._files.keeper_lock)}
        log = open_log(self._files.keeper_log)
        try:
            spawn_detached(self._keeper_command, log=log, environment=environment, lock=lock)
        finally:
            os.close(log)
        self._started_at = time.monotonic()

    def _stop_if_unused(self) -> None:
        alone = self._alone()
        if alone is None:
            return
        try:
            if self.redis_url and self._active_runs(self.redis_url) > 0:
                return
            self.check()  # without a keeper nobody would stop what a dead one left
            self._stop_keeper()
        except Unreachable as reason:
            _logger.warning("the local processes were not stopped: %s", reason)
        finally:
            unlock(alone)

    def _alone(self) -> int | None:
        """Keep other clients out, or return None if there are any. The keeper itself looks now and then, briefly."""
        deadline = time.monotonic() + _ALONE_SECONDS
        lock = try_lock(self._files.clients_lock)
        while lock is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            lock = try_lock(self._files.clients_lock)
        return lock

    def _stop_keeper(self) -> None:
        deadline = time.monotonic() + 3 * DRAIN_SECONDS
        while is_locked(self._files.keeper_lock):
            # Told again until it is gone: one that has just been started may not have listened yet.
            self._files.tell_keeper(STOP)
            if time.monotonic() >= deadline:
                raise Unreachable(f"the keeper is still busy, see {self._files.keeper_log}")
            time.sleep(POLL_SECONDS)


_leases: weakref.WeakSet[FleetLease] = weakref.WeakSet()


def _forget_all() -> None:
    for lease in list(_leases):
        lease.forget()


os.register_at_fork(after_in_child=_forget_all)
