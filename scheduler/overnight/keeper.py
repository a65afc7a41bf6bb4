"""The keeper of a state directory: keeps a server, a scheduler and workers alive for as long as they are used.

One loop: see that each process is there, follow what the clients want, and wait until a client, a signal or a short
time says to look again. The keeper owns nothing that its death could take along. The processes hold their locks
themselves, so the next keeper finds them and goes on; what clients want is in files that are valid while the client
lives.

It ends, and ends everything it keeps, when no client is there and no run is active for a while (or a server elsewhere
is gone for good: `fleet_usage`), when it is told to, or when its directory is removed. An end for want of use happens
under the exclusive lock of the clients, so that a client either comes before it and prevents it, or waits until it is
over and starts anew.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from overnight.config import GONE_SECONDS, IDLE_SECONDS
from overnight.embedded import EmbeddedServer
from overnight.errors import OvernightError, Unreachable
from overnight.fleet_files import STOP, FleetFiles
from overnight.fleet_plan import SCHEDULER, Demand, FleetPlan, largest
from overnight.fleet_usage import FleetUsage
from overnight.kept_server import KeptServer
from overnight.slots import Slot
from overnight.state_dir import is_locked, try_lock, unlock

#: Clients send a word and the system tells of the end of children: this is for what neither tells of.
POLL_SECONDS = 1.0
DRAIN_SECONDS = 30.0
_STOP_POLL_SECONDS = 0.02
_KILL_AGAIN_SECONDS = 1.0

_logger = logging.getLogger(__name__)


class Keeper:
    """Keeps one fleet. `lock` is the descriptor of the keeper's lock, which this process holds.

    `environment` gives the variables of a process about to be started; `active_runs` counts the runs that are not
    over, or raises Unreachable. `server` is None where the Redis is elsewhere. `before_end` is called before that
    server is ended, while it answers.
    """

    def __init__(
        self,
        files: FleetFiles,
        plan: FleetPlan,
        demand: Demand,
        *,
        lock: int,
        server: EmbeddedServer | None,
        environment: Callable[[], Mapping[str, str]],
        active_runs: Callable[[], int],
        before_end: Callable[[], None] = lambda: None,
        idle_seconds: float = IDLE_SECONDS,
        gone_seconds: float = GONE_SECONDS,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self._files = files
        self._plan = plan
        self._demand = demand
        self._lock = lock
        self._server = KeptServer(server) if server else None
        self._environment = environment
        self._active_runs = active_runs
        self._before_end = before_end
        self._usage = FleetUsage(active_runs, gone_seconds)
        self._idle_seconds = idle_seconds
        self._drain_seconds = drain_seconds
        self._slots: dict[str, Slot] = {}
        self._leaving: list[Slot] = []
        self._unused_since: float | None = None
        self._stop_signals = 0
        self._told_to_stop = False
        self._pipe = -1

    def run(self) -> None:
        """Keep the fleet until it is to end, then end it. Runs in the main thread."""
        self._pipe = self._open_pipe()
        self._listen_to_signals()
        self._dismiss_leftovers()
        while not self._is_over():
            try:
                self._look_after_all()
            except OSError as error:  # a full disk, no more descriptors, the directory being removed: look again
                _logger.error("cannot look after the processes: %s", error)
            self._wait(self._pause())
        self._end_all()

    # One round.

    def _look_after_all(self) -> None:
        if self._server:
            self._server.keep()
        self._follow_demand()
        for slot in self._slots.values():
            slot.keep()
        self._leaving = [slot for slot in self._leaving if not slot.is_free()]
        for slot in self._leaving:
            slot.drain()

    def _follow_demand(self) -> None:
        """Fit the slots to what the living clients want; what the last ones wanted stays when they are gone.

        A client that only reads wants no process, and takes none away.
        """
        demands = [demand for demand in self._files.demands() if not demand.is_empty]
        if demands:
            self._demand = largest(demands)
        commands = self._plan.commands(self._demand)
        for name in [name for name in self._slots if name not in commands]:
            self._dismiss(self._slots.pop(name))
        for name, argv in commands.items():
            if name not in self._slots:
                self._slots[name] = self._slot(name, argv)

    def _slot(self, name: str, argv: Sequence[str]) -> Slot:
        return Slot(
            name,
            argv,
            lock_path=self._files.slot_lock(name),
            log_path=self._files.log(name),
            note_path=self._files.ends_note(name),
            environment=self._environment,
        )

    def _dismiss(self, slot: Slot) -> None:
        _logger.info("%s is no longer needed", slot.name)
        slot.forget_ends()
        self._leaving.append(slot)

    def _dismiss_leftovers(self) -> None:
        """End what an earlier keeper started and nobody wants now, and forget what it noted of that.

        A keeper whose clients only read leaves the notes for them.
        """
        self._follow_demand()
        for name in self._files.known_slots() if self._slots else ():
            if name not in self._slots:
                self._files.ends_note(name).unlink(missing_ok=True)
        for name in self._files.known_slots():
            if name not in self._slots and is_locked(self._files.slot_lock(name)):
                self._dismiss(self._slot(name, ()))

    # Waiting.

    def _pause(self) -> float:
        now = time.monotonic()
        starts = [slot.not_before - now for slot in self._slots.values() if slot.not_before > now]
        return min([POLL_SECONDS, *starts])

    def _wait(self, seconds: float) -> None:
        """Wait for a word of a client, a signal, or so long."""
        if not select.select([self._pipe], [], [], seconds)[0]:
            return
        with suppress(BlockingIOError):
            self._told_to_stop = STOP in os.read(self._pipe, 65536) or self._told_to_stop

    def _open_pipe(self) -> int:
        with suppress(FileExistsError):
            os.mkfifo(self._files.pipe, 0o600)
        # Open for writing too, so that it never reads as ended and signals can be written to it.
        return os.open(self._files.pipe, os.O_RDWR | os.O_NONBLOCK)

    def _listen_to_signals(self) -> None:
        signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_stop_signal)
        # Handlers, not SIG_IGN, which the processes started here would inherit; SIGCHLD then wakes the loop.
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, lambda _number, _frame: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _note_stop_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_signals += 1

    # The end.

    def _is_over(self) -> bool:
        if self._stop_signals or self._told_to_stop:
            _logger.info("stopping: %s", "a signal came" if self._stop_signals else "the last client has closed")
            return True
        if self._is_removed():
            _logger.warning("%s was removed", self._files.directory)
            return True
        return self._is_unused()

    def _is_removed(self) -> bool:
        try:
            return not os.path.samestat(os.fstat(self._lock), self._files.keeper_lock.stat())
        except FileNotFoundError:
            return True

    def _is_unused(self) -> bool:
        """Tell whether nothing has used the fleet for long enough; if so, new clients wait from here on."""
        lock = try_lock(self._files.clients_lock)
        now = time.monotonic()
        if lock is None and not self._server:
            self._usage.note_clients()
        if lock is None or self._has_work():
            self._unused_since = None
        elif self._unused_since is None:
            self._unused_since = now
        if self._unused_since is not None and now - self._unused_since >= self._idle_seconds:
            _logger.info("unused for %g s: stopping", self._idle_seconds)
            return True  # the lock stays with this process until it has ended
        if lock is not None:
            unlock(lock)
        return False

    def _has_work(self) -> bool:
        """Ask for active runs; without an answer of our own server there may be some, unless it cannot even start."""
        if not self._server:
            return self._usage.may_have_runs()
        try:
            return self._active_runs() > 0
        except Unreachable:
            return not self._server.is_failing

    def _end_all(self) -> None:
        workers = [slot for name, slot in self._slots.items() if name != SCHEDULER] + self._leaving
        self._end_slots(workers)
        self._end_slots([slot for name, slot in self._slots.items() if name == SCHEDULER])
        self._end_server()
        _logger.info("stopped")

    def _end_server(self) -> None:
        if not self._server:
            return
        try:
            if self._is_removed():
                self._server.kill()
                return
            try:
                self._before_end()
            except (OvernightError, OSError) as error:
                _logger.warning("what failed in the last runs could not be recorded: %s", error)
            self._server.stop()
        except OvernightError as error:
            _logger.error("%s", error)

    def _end_slots(self, slots: Iterable[Slot]) -> None:
        """Have them drain, more urgently when this process gets another signal; kill what is left after a time."""
        left = [slot for slot in slots if not slot.is_free()]
        deadline = time.monotonic() + self._drain_seconds
        signals = self._stop_signals
        while left:
            for slot in left:
                slot.drain(again=self._stop_signals > signals)
            signals = self._stop_signals
            if time.monotonic() >= deadline:
                _kill(left, self._drain_seconds)
                deadline += _KILL_AGAIN_SECONDS
            self._wait(_STOP_POLL_SECONDS)
            left = [slot for slot in left if not slot.is_free()]


def _kill(slots: Iterable[Slot], waited_seconds: float) -> None:
    for slot in slots:
        _logger.warning("%s did not stop within %g s: killing it", slot.name, waited_seconds)
        slot.tell(signal.SIGKILL)


def fleet_environment(redis_url: str, state_dir: Path) -> dict[str, str]:
    """Return the environment of the processes of a fleet."""
    return {**os.environ, "OVERNIGHT_REDIS_URL": redis_url, "OVERNIGHT_STATE_DIR": str(state_dir)}
