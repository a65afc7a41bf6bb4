"""The scheduler's loop: wait for events, let the core decide, write what it wants, fill the window.

One instance holds the epoch and dispatches; any other stands by and takes over when the lease runs out. A scheduler
that finds itself fenced becomes standby. When the server was away, or is another one than before, everything is read
again: nothing in this process's memory is needed to go on.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from dataclasses import replace

from overnight import failpoints
from overnight.config import Settings
from overnight.core.actions import Action
from overnight.core.events import Woken
from overnight.errors import Fenced, MisusedKey, StoreFull, UnknownRun, Unreachable
from overnight.keyring import Keyring
from overnight.service.active_run import ActiveRun
from overnight.service.duties import Duties
from overnight.service.identity import is_provably_dead
from overnight.service.intake import by_run, events_of, jitter
from overnight.service.learned import LearnedDurations
from overnight.service.left_alone import DAMAGED, LeftAlone
from overnight.service.lost_digests import LostDigests
from overnight.service.observer import Observer
from overnight.service.perform import Diverged, Performer
from overnight.service.recover import read_again, take_over
from overnight.service.sharing import Sharing
from overnight.store.ports import SchedulingStore
from overnight.store.records import Epoch, EpochHeld, Happening, RunEvent
from overnight.transport.port import Transport

_logger = logging.getLogger("overnight.scheduler")

LONGEST_WAIT = 1.0
OUTAGE_PAUSE = 0.2
FULL_PAUSE = 1.0


class Scheduler:
    """Runs until `stop` is set. `describe` is what people see of this instance; `seal` and open with `keyring`."""

    def __init__(
        self,
        store: SchedulingStore,
        transport: Transport,
        keyring: Keyring,
        settings: Settings,
        describe: str,
        stop: threading.Event,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._store = store
        self._transport = transport
        self._keyring = keyring
        self._settings = settings
        self._describe = describe
        self._stop = stop
        self._holder = secrets.token_hex(16)
        self._runs: dict[str, ActiveRun] = {}
        self._left_alone = LeftAlone(store, describe)
        self._lost_digests = LostDigests(store, keyring)
        self._learned = LearnedDurations()
        self._leader = ""
        self._outage = ""
        self._said_epoch = 0
        self._sharing = Sharing(settings.resource_limits)

    def run(self) -> None:
        """Hold the epoch whenever possible, until stopped; a clean stop gives it up at once."""
        while not self._stop.is_set():
            try:
                performer = self._take_epoch()
                if performer is not None:
                    self._reign(performer)
            except Fenced:
                _logger.warning("another scheduler took over: standing by")
            except Unreachable as error:
                self._say_outage(str(error))
                # A person puts a key right, in minutes; every run is read for each try.
                self._stop.wait(LONGEST_WAIT if isinstance(error, MisusedKey) else OUTAGE_PAUSE)

    def _say_outage(self, text: str) -> None:
        if text != self._outage:
            _logger.warning("Redis cannot be used, trying again: %s", text) if text else _logger.info("it goes on")
            self._outage = text

    def _take_epoch(self) -> Performer | None:
        taken = self._store.take_epoch(self._holder, self._describe, self._settings.lease_seconds)
        if isinstance(taken, EpochHeld) and is_provably_dead(taken.description):
            _logger.info("scheduler %s is dead: taking its epoch", taken.description)
            self._store.leave_epoch(Epoch(0, taken.holder))
            return None
        if isinstance(taken, EpochHeld):
            self._say_standing_by(taken)
            self._stop.wait(min(LONGEST_WAIT, max(0.05, taken.seconds)))
            return None
        failpoints.reach("scheduler.after_epoch")
        if taken.number != self._said_epoch:  # one that an outage interrupted goes on
            self._said_epoch = taken.number
            _logger.info("took epoch %d as %s", taken.number, self._describe)
        return Performer(self._store, self._transport, self._keyring, taken, self._observer)

    def _say_standing_by(self, held: EpochHeld) -> None:
        if held.holder != self._leader:
            self._leader = held.holder
            _logger.info("standing by: scheduler %s holds the epoch", held.description)

    def _reign(self, performer: Performer) -> None:
        """Dispatch under the epoch until stopped, fenced or cut off."""
        self._offset = self._store.now() - time.monotonic()
        self._learned.take(self._store.read_durations())
        self._runs.clear()
        self._duties = duties = Duties(self._store, performer, self._settings, self._learned)
        self._meet_new_runs(performer)
        while not self._stop.is_set():
            self._tick(performer, duties)
        failpoints.reach("scheduler.before_exit")
        self._store.write_durations(self._learned.given())
        self._store.leave_epoch(performer.epoch)
        _logger.info("stopped: epoch %d is free", performer.epoch.number)

    def _now(self) -> float:
        """The server's clock, carried on by this host's monotonic one."""
        return time.monotonic() + self._offset

    def _tick(self, performer: Performer, duties: Duties) -> None:
        for run_id in duties.due(self._runs, self._now()):
            self._read_again(performer, run_id)
        self._offer(performer, duties)
        self._finish(performer)
        self._say_outage("")
        cursors = {run_id: run.cursor for run_id, run in self._runs.items()}
        entries, changed = self._store.wait(cursors, duties.seconds_to_wait(self._now(), LONGEST_WAIT))
        for run_id, group in by_run(entries).items():
            if run_id in self._runs:
                self._take_in(performer, duties, self._runs[run_id], group)
        for run_id in duties.woken(self._now()):
            if run_id in self._runs:
                run = self._runs[run_id]
                self._perform(performer, duties, run, run.core.handle(Woken(self._now())))
        if changed or self._left_alone.is_due(self._now()):
            self._meet_new_runs(performer)
        self._left_alone.end_cancelled(performer.epoch, self._now())

    def _take_in(self, performer: Performer, duties: Duties, run: ActiveRun, entries: list[RunEvent]) -> None:
        """Feed one run's entries to its core and carry out what it wants; where they do not tell all, read again."""
        try:
            actions = self._heard(duties, run, entries)
        except UnknownRun:
            self._forget(run.run_id, "Redis no longer knows it")
        except DAMAGED:
            self._read_again(performer, run.run_id)
        else:
            if actions is None:
                self._read_again(performer, run.run_id)
                return
            if any(entry.what is Happening.ADDED for entry in entries):
                self._tell_excess(performer, run)
            self._perform(performer, duties, run, actions)

    def _heard(self, duties: Duties, run: ActiveRun, entries: list[RunEvent]) -> list[Action] | None:
        """Return what the core wants after these entries; None if its state is not the stored one."""
        now = self._now()
        actions: list[Action] = []
        for entry in entries:
            run.hear(entry, now)
            if entry.what is Happening.GAP or run.gave_up_too_soon(entry):
                return None
            if entry.what is Happening.RETURNED and run.came_back_whole(entry):
                if self._lost_digests.keep_back(run, entry.tasks):
                    return None
                if run.keeps_coming_back(now):
                    _logger.warning("run %s: workers give its batches back; it is read again and held back", run.run_id)
                    return None
            if entry.what is Happening.ADDED:
                actions += self._add(run, entry)
            duties.saw(run, entry, now)
            for event in events_of(run, entry, now, jitter):
                actions += run.core.handle(event)
        return actions

    def _add(self, run: ActiveRun, entry: RunEvent) -> list[Action]:
        run.over = None
        actions: list[Action] = []
        for sealed in self._store.read_specs(run.run_id, run.known):
            actions += run.add(sealed, self._keyring)
        if entry.tasks:
            actions += run.adopt(entry.tasks, self._store.read_digests(run.run_id, entry.tasks))
        return actions

    def _tell_excess(self, performer: Performer, run: ActiveRun) -> None:
        """Keep with a run what keeps tasks of it from ever starting."""
        excess = self._sharing.excess(run)
        if run.record.note != excess:
            self._store.note(performer.epoch, run.run_id, excess)
            run.record = replace(run.record, note=excess)

    def _perform(self, performer: Performer, duties: Duties, run: ActiveRun, actions: list[Action]) -> None:
        if not actions:
            return
        try:
            work = performer.perform(run, actions, self._now())
        except Diverged:
            _logger.info("run %s: the store holds another truth, reading it again", run.run_id)
            self._read_again(performer, run.run_id)
        except StoreFull as error:
            _logger.warning("run %s: no room to dispatch, waiting: %s", run.run_id, error)
            self._read_again(performer, run.run_id)
            duties.hold(self._now() + FULL_PAUSE)
        except UnknownRun:
            self._forget(run.run_id, "Redis no longer knows it")
        except DAMAGED as error:
            self._leave_alone(performer, run.run_id, error)
        else:
            duties.wake(run.run_id, work.wake_at)

    def _offer(self, performer: Performer, duties: Duties) -> None:
        """Fill the window of each queue; runs share it."""
        if duties.is_held(self._now()):
            return
        waiting = {queue for run in self._runs.values() for queue in run.queues}
        for queue in sorted(waiting):
            self._offer_on(queue, performer, duties)

    def _offer_on(self, queue: str, performer: Performer, duties: Duties) -> None:
        for turn in self._sharing.turns(queue, duties.workers_on(queue), self._runs.values(), self._now()):
            actions = self._sharing.served(turn, turn.run.core.handle(turn.event))
            self._perform(performer, duties, turn.run, actions)

    def _finish(self, performer: Performer) -> None:
        for run in [run for run in self._runs.values() if run.over is not None]:
            try:
                has_ended = performer.finish(run)
            except UnknownRun:
                self._forget(run.run_id, "Redis no longer knows it")
                continue
            except DAMAGED as error:
                self._leave_alone(performer, run.run_id, error)
                continue
            if has_ended:
                del self._runs[run.run_id]
                self._learned.learn(run.core.durations.export())
                self._store.write_durations(self._learned.given())

    def _meet_new_runs(self, performer: Performer) -> None:
        """Take over every active run that is not in memory yet; forget those that are over."""
        active = self._store.active_runs()
        for run_id in [run_id for run_id in self._runs if run_id not in set(active)]:
            self._forget(run_id, "it is over")
        self._left_alone.keep(set(active))
        for run_id in active:
            if run_id not in self._runs and not self._left_alone.holds(run_id, self._now()):
                self._read_again(performer, run_id)

    def _read_again(self, performer: Performer, run_id: str) -> None:
        """Read the run's stored truth and carry out what is due; also the way a run is met first."""
        try:
            snapshot = self._lost_digests.mended(performer.epoch, self._store.load_run(run_id))
            failpoints.reach("scheduler.after_state_read")
            run = self._runs.get(run_id)
            if run is not None and not run.was_made_from(snapshot.specs):
                _logger.warning("run %s: the server has lost tasks that had been added", run_id)
                run = None
            if run is None:
                run, actions = take_over(snapshot, self._keyring, self._learned, self._now())
                self._runs[run_id] = run
                _logger.info("run %s (%s): %d tasks", run_id, run.record.name, run.known)
            else:
                for sealed in snapshot.specs:
                    run.add(sealed, self._keyring)
                actions = read_again(run, snapshot, self._now())
            self._tell_excess(performer, run)
            work = performer.perform(run, actions, self._now())
            self._duties.wake(run_id, work.wake_at)
            if work.phase is not None:
                _logger.debug("run %s: every task is terminal", run_id)
        except UnknownRun:
            self._forget(run_id, "Redis no longer knows it")
        except (Diverged, StoreFull) as error:
            _logger.warning("run %s: will be read again: %s", run_id, error)
        except DAMAGED as error:
            self._leave_alone(performer, run_id, error)
        else:
            self._left_alone.take(run_id)

    def _leave_alone(self, performer: Performer, run_id: str, error: Exception) -> None:
        """Serve the other runs without this one, which cannot be read."""
        self._runs.pop(run_id, None)
        self._left_alone.put(performer.epoch, run_id, error, self._now())

    def _forget(self, run_id: str, why: str) -> None:
        if self._runs.pop(run_id, None) is not None:
            _logger.info("run %s leaves this scheduler: %s", run_id, why)
