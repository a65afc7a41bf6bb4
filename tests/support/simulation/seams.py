"""What stands in for the machine while a world is played: time, random names, waiting, and steps of files.

Modules of the product look up `time.monotonic` and the like at each call, so that replacing a module's name for the
time module is enough. Nothing stays replaced when the world has been left.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import random
import secrets
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from random import Random
from typing import Any

from overnight.config import Settings
from overnight.launch import BLOBS
from overnight.messages import RunContext
from overnight.run_key import RunOptions
from tests.support.simulation.world import World

_FILE_STEPS = ("link", "rename")


class SimTime:
    """The time module on a simulated clock."""

    strftime = staticmethod(time.strftime)
    localtime = staticmethod(time.localtime)

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.now

    perf_counter = monotonic

    def monotonic_ns(self) -> int:
        return int(self._world.now * 1e9)

    def time(self) -> float:
        return self._world.wall_clock()

    def gmtime(self, seconds: float | None = None) -> Any:
        return time.gmtime(self.time() if seconds is None else seconds)

    def sleep(self, seconds: float) -> None:
        self._world.sleep(seconds)


class SimSecrets:
    """The secrets module, drawn from the seed."""

    def __init__(self, source: Random) -> None:
        self._source = source

    def token_hex(self, size: int) -> str:
        return f"{self._source.getrandbits(8 * size):0{2 * size}x}"


class SimEvent:
    """An event of the threading module that lets simulated time pass."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True

    def wait(self, seconds: float) -> bool:
        self._world.sleep(seconds)
        return self._is_set


class SimThreading:
    """The threading module, as far as it waits."""

    def __init__(self, world: World) -> None:
        self._world = world

    def Event(self) -> SimEvent:  # noqa: N802
        return SimEvent(self._world)

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


class SimPoll:
    """A poll object: whoever polls is woken when the world has news for it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ready: list[Any] = []

    def register(self, source: Any, _mask: int = 0) -> None:
        self._ready.append(source)

    def poll(self, milliseconds: float) -> list[Any]:
        if not any(getattr(source, "has_news", False) for source in self._ready):
            self._world.park(max(0.0005, milliseconds / 1000))
        return []


class SimSelect:
    """The select module for sessions."""

    POLLIN, POLLOUT = select.POLLIN, select.POLLOUT

    def __init__(self, world: World) -> None:
        self._world = world

    def poll(self) -> SimPoll:
        return SimPoll(self._world)


class SimOs:
    """The os module for flags: putting one in place is a step of the world, and directories' times are drawn on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stamps = itertools.count(1_700_000_000_000_000_000)
        #: Called with (name, whether it is torn) when a flag is in place.
        self.placed: Any = None
        #: Called with the name of a flag that cannot be written.
        self.refused: Any = None
        self._full_until = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, *mode: Any, **options: Any) -> int:
        if flags & os.O_CREAT and self._world.current is not None and self._is_full():
            if self.refused is not None:
                self.refused(os.path.basename(path).rpartition(".flag.")[0] + ".flag")  # noqa: PTH119 - may be text
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return os.open(path, flags, *mode, **options)

    def _is_full(self) -> bool:
        world = self._world
        if world.strikes("disk"):
            self._full_until = world.now + world.random.choice((0.0, 0.5, 3.0, 12.0))
            return True
        return world.storm and world.now < self._full_until

    def fsync(self, _descriptor: int) -> None:
        return

    def link(self, source: str, target: str, **where: Any) -> None:
        self._step("link", source, target, where)
        os.link(source, target, **where)
        self._done(target, where["dst_dir_fd"])

    def rename(self, source: str, target: str, **where: Any) -> None:
        self._step("rename", source, target, where)
        os.rename(source, target, **where)  # noqa: PTH104 - by descriptors
        self._done(target, where["dst_dir_fd"])

    def _step(self, point: str, source: str, target: str, where: dict[str, Any]) -> None:
        if self._world.current is None:
            return
        self._world.step(point)
        if target.endswith(".flag") and self._world.strikes("torn"):
            with suppress(OSError):
                descriptor = os.open(source, os.O_WRONLY, dir_fd=where["src_dir_fd"])
                os.ftruncate(descriptor, self._world.random.randrange(os.fstat(descriptor).st_size))
                os.close(descriptor)
                os.rename(source, target, **{k: v for k, v in where.items() if k != "follow_symlinks"})  # noqa: PTH104
                self._done(target, where["dst_dir_fd"])
            if self.placed is not None:
                self.placed(target, True)
            actor = self._world.current
            if actor is not None:
                self._world.kill(actor)

    def _done(self, target: str, directory: int) -> None:
        stamp = next(self._stamps)
        os.utime(directory, ns=(stamp, stamp))
        if self.placed is not None and target.endswith(".flag"):
            self.placed(target, False)


class SimReadingOs:
    """The os module for readers of flags: a look may take its time."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, *where: Any, **options: Any) -> int:
        if self._world.current is not None and self._world.strikes("slow", 0.3):
            self._world.sleep(self._world.random.random() * 2.0)
        return os.open(*where, **options)


class SimRandom:
    """The random module for jitter."""

    def __init__(self, source: Random) -> None:
        self.uniform = source.uniform


def _replacements(world: World) -> dict[Any, Any]:
    return {
        time: SimTime(world),
        secrets: SimSecrets(world.random),
        random: SimRandom(world.random),
        threading: SimThreading(world),
        select: SimSelect(world),
    }


@cache
def _users(_loaded: int) -> list[tuple[Any, str]]:
    """Return the names of the product's modules that stand for the machine, with their modules.

    `_loaded` is the number of modules: whenever there are more, one looks again.
    """
    users = []
    for name, module in list(sys.modules.items()):
        if not name.startswith(("overnight.", "overnight_worker.")):
            continue
        for attribute in ("time", "secrets", "random", "threading", "select"):
            found = module.__dict__.get(attribute)
            if found in (time, secrets, random, select) or (found is threading and name == "overnight.following"):
                users.append((module, attribute))
    return users


def _surroundings(options: RunOptions, settings: Settings) -> RunContext:
    """Return what tasks find around them: nothing of this machine, which they do not look at."""
    return RunContext(
        directory="/",
        umask=0o077,
        environment={},
        import_paths=[],
        log_dir=options.log_dir,
        verbosity=options.verbosity,
        status_dir=options.status_dir,
        blob_dir=str(settings.state_dir / BLOBS),
        fork_tasks=options.fork_tasks,
    )


@contextmanager
def in_place(world: World, child: Any) -> Iterator[SimOs]:
    """Put a world in place of the machine for the product's modules that it uses."""
    import overnight.flag_files
    import overnight.flag_writing
    import overnight.launch
    import overnight_worker.nursery
    import overnight_worker.spool

    stands = _replacements(world)
    files = SimOs(world)
    changed: list[tuple[Any, str, Any]] = []

    def put(module: Any, name: str, value: Any) -> None:
        changed.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    for module, attribute in _users(len(sys.modules)):
        put(module, attribute, stands[getattr(module, attribute)])
    put(overnight.launch, "context_of", _surroundings)
    put(overnight.flag_writing, "os", files)
    put(overnight.flag_writing, "_syncfs", lambda _descriptor: True)
    put(overnight.flag_files, "os", SimReadingOs(world))
    put(overnight_worker.spool, "os", files)
    put(overnight_worker.nursery, "ChildProcess", child)
    before = logging.root.manager.disable
    if world.trace is None:
        logging.disable(logging.CRITICAL)
    try:
        yield files
    finally:
        logging.disable(before)
        for module, attribute, value in reversed(changed):
            setattr(module, attribute, value)
