"""What every part of a supervisor works with: its store, its keys, its settings, its names, its signals."""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Protocol

from overnight.config import Settings
from overnight.errors import DamagedRun, UnknownRun, Unreachable
from overnight.keyring import Keyring
from overnight.store.ports import WorkingStore
from overnight.wire import PROTOCOL

#: Two signals within this time are one: a terminal and a parent both pass on the same Ctrl-C.
SAME_SIGNAL_SECONDS = 1.0
#: More processes than this below one supervisor are a task that forks without end.
PROCESS_LIMIT = 4096


class Stopping:
    """What signals have asked for: 0 nothing, 1 drain, 2 stop at once. A pipe wakes whoever waits."""

    def __init__(self) -> None:
        self.level = 0
        self._since = 0.0
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable on a signal."""
        return self._reading

    def ask(self) -> None:
        """A signal has come."""
        now = time.monotonic()
        if self.level and now - self._since < SAME_SIGNAL_SECONDS:
            return
        self.level = min(2, self.level + 1)
        self._since = now
        os.write(self._writing, b"s")

    def seconds_left(self, drain_seconds: float) -> float:
        """Return how long running tasks still have, once draining has begun."""
        return self._since + drain_seconds - time.monotonic() if self.level == 1 else 0.0

    def clear_wakeup(self) -> None:
        """Empty the pipe."""
        try:
            os.read(self._reading, 64)
        except BlockingIOError:
            return


class WorkerStore(WorkingStore, Protocol):
    """The port of the store, and the one read that comes before a first claim."""

    def context(self, run_id: str) -> bytes:
        """Return the run's sealed context."""


@dataclass(slots=True)
class Post:
    """A supervisor's place in the deployment. `instance` is drawn when the process starts and fences its leases."""

    store: WorkerStore
    keyring: Keyring
    settings: Settings
    queues: Sequence[str]
    name: str
    instance: str = field(default_factory=lambda: secrets.token_hex(16))
    python: str = field(default_factory=platform.python_version)
    protocol: int = PROTOCOL
    overnight: str = field(default_factory=lambda: version("overnight"))
    started_at: float = field(default_factory=time.time)
    stopping: Stopping = field(default_factory=Stopping)
    isolate_tasks: bool = False
    tasks_per_child: int = 100_000
    memory_limit_bytes: int | None = None
    process_limit: int = PROCESS_LIMIT

    @property
    def host(self) -> str:
        """What this worker calls its host."""
        return self.settings.host_name

    def is_active(self, run_id: str) -> bool:
        """Tell whether a run goes on, as far as is known: while the server is away, no other begins in its place."""
        try:
            return not self.store.run(run_id).phase.is_over
        except Unreachable:
            return True
        except (UnknownRun, DamagedRun):
            return False

    @property
    def drain_seconds_left(self) -> float:
        """How long running tasks and unanswered commits still have; 0 unless this worker drains."""
        return self.stopping.seconds_left(self.settings.drain_seconds)
