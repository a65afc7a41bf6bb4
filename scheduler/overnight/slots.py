"""Slots: a process and the lock that lives exactly as long as it.

Whoever starts a process for a slot takes the slot's lock first and hands it over as an inherited descriptor, named
by OVERNIGHT_SLOT_FD. The process calls `hold_slot()` before anything else: from then on no program that it starts
and no copy that it forks keeps the lock, and the lock file tells its process id. So a lock that is held means a
living process, a lock that can be taken means a free slot, whoever started the process and whether that still lives.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from overnight.early_ends import EarlyEnds
from overnight.errors import Unreachable
from overnight.state_dir import is_locked, last_line, open_log, try_lock

SLOT_VARIABLE = "OVERNIGHT_SLOT_FD"
#: A process that ends sooner than this after its start is restarted with growing delay.
SETTLED_SECONDS = 5.0
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0

_logger = logging.getLogger(__name__)


def slot_environment(descriptor: int, lock_path: Path) -> dict[str, str]:
    """Return the variable that tells a process which descriptor holds the lock of which file."""
    return {SLOT_VARIABLE: f"{descriptor}:{lock_path}"}


def hold_slot() -> int | None:
    """Make the inherited slot lock this process's own; call it before starting threads or processes.

    Returns the descriptor, which stays open until the process ends, or None if this process was given no slot. The
    variable is removed from `os.environ` in any case.
    """
    number, _, path = os.environ.pop(SLOT_VARIABLE, "").partition(":")
    if not number.isdecimal() or not _is_open_on(int(number), path):
        return None
    descriptor = int(number)
    fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    lock_file = os.fstat(descriptor)
    os.register_at_fork(after_in_child=lambda: _close_if_same(descriptor, lock_file))
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor


def _is_open_on(descriptor: int, path: str) -> bool:
    """Tell a slot's own variable from one that strayed here: that names a closed descriptor or another file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116 - compared with a descriptor's
    except OSError:
        return False


def _close_if_same(descriptor: int, file: os.stat_result) -> None:
    """Close the descriptor unless it has been closed, and perhaps opened on another file, since."""
    with suppress(OSError):
        if os.path.samestat(os.fstat(descriptor), file):
            os.close(descriptor)


def slot_pid(lock_path: Path) -> int | None:
    """Return the process id of the slot's holder, or None if nothing holds it or it has not said so yet."""
    try:
        text = lock_path.read_text()
    except FileNotFoundError:
        return None
    return int(text) if text.strip().isdecimal() and is_locked(lock_path) else None


def spawn_detached(argv: Sequence[str], *, log: int, environment: Mapping[str, str], lock: int) -> int:
    """Start a program as a child of nobody, in a session of its own, and return its process id.

    It outlives this process, is never left a zombie of it, writes to the descriptor `log` and inherits `lock`.
    A shell that ends at once stands between; SIGINT and SIGQUIT are ignored in the program until it sets them.
    """
    # The shell's own standard output is the pipe that brings the process id, so the program's is set inside.
    started = subprocess.run(
        ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        env=dict(environment),
        pass_fds=(lock,),
        start_new_session=True,
        check=False,
    )
    if started.returncode or not started.stdout.strip().isdigit():
        raise Unreachable(f"{argv[0]} cannot be started: the shell ended with status {started.returncode}.")
    return int(started.stdout)


def how_it_ended(return_code: int) -> str:
    """Say in words what `Popen.returncode` says: an exit status or the name of a signal."""
    if return_code >= 0:
        return f"exit status {return_code}"
    try:
        return signal.Signals(-return_code).name
    except ValueError:
        return f"signal {-return_code}"


class Backoff:
    """When a process that ended may be started again: at once, or later and later while it ends early."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.not_before = 0.0
        #: How many in a row have ended early.
        self.early_ends = 0
        self._started = 0.0

    def started(self, now: float) -> None:
        """Note a start, at a time of the monotonic clock in seconds."""
        self._started = now

    def has_settled(self, now: float) -> bool:
        """Tell whether what was started has lasted long enough for its end to be no early one."""
        return now - self._started >= SETTLED_SECONDS

    def ended(self, now: float) -> None:
        """Note an end."""
        if self.has_settled(now):
            self.delay, self.early_ends = 0.0, 0
        else:
            self.early_ends += 1
            self.delay = min(max(2 * self.delay, FIRST_DELAY_SECONDS), LONGEST_DELAY_SECONDS)
        self.not_before = now + self.delay


class Slot:
    """One process that is to be there: started, or taken over from an earlier keeper, and restarted when it ends."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        lock_path: Path,
        log_path: Path,
        note_path: Path,
        environment: Callable[[], Mapping[str, str]],
    ) -> None:
        self.name = name
        self._argv = tuple(argv)
        self._lock_path = lock_path
        self._log_path = log_path
        self._log_start = 0
        self._note_path = note_path
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._adopted = False
        self._told = False
        self._backoff = Backoff()

    @property
    def not_before(self) -> float:
        """Return the time of the monotonic clock, in seconds, before which `keep` starts nothing."""
        return self._backoff.not_before

    def keep(self) -> None:
        """Start the process if the slot is free and the delay is over."""
        now = time.monotonic()
        self._notice_end(now)
        if self._process is not None and self._backoff.early_ends and self._backoff.has_settled(now):
            self.forget_ends()
        if self._process is not None or now < self.not_before:
            return
        lock = try_lock(self._lock_path)
        if lock is None:
            self._adopt()
            return
        try:
            self._start(lock, now)
        finally:
            os.close(lock)

    def drain(self, *, again: bool = False) -> None:
        """Send SIGTERM: once, however often this is called, or once more if `again` says so."""
        if again or not self._told:
            self._told = self.tell(signal.SIGTERM)

    def tell(self, signal_number: int) -> bool:
        """Send a signal to the process; return False if there is none, or one that has not told its id yet."""
        if self._process is not None:
            self._process.send_signal(signal_number)
            return True
        pid = slot_pid(self._lock_path)
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal_number)
        return True

    def forget_ends(self) -> None:
        """Forget that processes of this slot have ended early, and remove the note that says so."""
        self._backoff.early_ends = 0
        self._note_path.unlink(missing_ok=True)

    def is_free(self) -> bool:
        """Tell whether no process is in the slot."""
        if self._process is not None:
            return self._process.poll() is not None
        return not is_locked(self._lock_path)

    def _notice_end(self, now: float) -> None:
        if self._process is None or self._process.poll() is None:
            return
        process, self._process = self._process, None
        self._backoff.ended(now)
        how = how_it_ended(process.returncode)
        _logger.warning(
            "%s (pid %d) ended: %s; restarting %s",
            self.name,
            process.pid,
            how,
            f"in {self._backoff.delay:g} s" if self._backoff.delay else "at once",
        )
        if self._backoff.early_ends:
            line = last_line(self._log_path, self._log_start)
            ends = EarlyEnds(self.name, self._backoff.early_ends, time.time(), how, str(self._log_path), line)
            with suppress(OSError):  # a full disk: the processes are looked after all the same
                ends.write_to(self._note_path)

    def _adopt(self) -> None:
        if not self._adopted:
            _logger.info("%s (pid %s) is there already", self.name, slot_pid(self._lock_path) or "unknown")
        self._adopted = True

    def _start(self, lock: int, now: float) -> None:
        if self._adopted:
            _logger.warning("%s, started by an earlier keeper, ended; restarting", self.name)
            self._adopted = False
        os.ftruncate(lock, 0)
        if not self._backoff.early_ends:
            self.forget_ends()
        log = open_log(self._log_path)
        try:
            self._log_start = os.fstat(log).st_size
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self._environment(), **slot_environment(lock, self._lock_path)},
                pass_fds=(lock,),
                start_new_session=True,
            )
        except OSError as error:
            self._backoff.ended(now)
            _logger.error("%s cannot be started: %s: %s", self.name, self._argv[0], error.strerror)
        else:
            self._backoff.started(now)
            _logger.info("%s started (pid %d)", self.name, self._process.pid)
        finally:
            os.close(log)
