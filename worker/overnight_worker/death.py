"""How the process of a task ended, in words."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from overnight.error_text import LAST_OUTPUT
from overnight.errors import TaskDied
from overnight.slots import how_it_ended
from overnight_worker.memory_kills import MemoryKills

_MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Death:
    """The exit code or the signal's name, the peak memory in bytes, and what the process printed last.

    `memory_limit` is that of its cgroup, in bytes, if the kernel killed it for want of memory and there is one.
    `beyond` says which limit its worker killed it for, `advice` what its task may do about that.
    """

    exit_code: int | None
    signal: str | None
    peak_memory: int
    out_of_memory: bool = False
    memory_limit: int | None = None
    last_words: str = ""
    beyond: str = ""
    advice: str = ""

    def sentence(self) -> str:
        """Say it, with the process as the subject."""
        if self.beyond:
            return f"was killed by its worker, {self.beyond}"
        peak = f"peak memory {self.peak_memory / 1e6:.0f} MB"
        if self.out_of_memory:
            limit = f", limit of its cgroup {self.memory_limit / 1e6:.0f} MB" if self.memory_limit else ""
            return f"was killed by the kernel, out of memory ({self.signal}, {peak}{limit})"
        how = f"was killed by {self.signal}" if self.signal else f"ended without a result, exit status {self.exit_code}"
        return f"{how}, {peak}"

    def ended_by(self) -> str:
        """Say what ended the process in words that are the same for all that ended so."""
        if self.beyond:
            return f"its worker, {self.beyond.partition(',')[0]}"
        if self.signal is None:
            return f"exit status {self.exit_code}"
        return f"{self.signal}, out of memory" if self.out_of_memory else self.signal

    def error(self, worker: str) -> TaskDied:
        """Return the failure of the task: what happened to it, on which worker, and what can be done."""
        parts = [f"The process of the task on worker {worker} {self.sentence()}."]
        if self.beyond:
            parts.append(f"Let the task {self.advice}.")
        elif self.out_of_memory:
            more = "raise the limit" if self.memory_limit else "run it on a machine with more memory"
            parts.append(f"Let the task hold less at once, run fewer tasks beside it (-j), or {more}.")
        if self.last_words:
            parts.append(f"{LAST_OUTPUT}\n{self.last_words}")
        return TaskDied(" ".join(parts), signal=self.signal, exit_code=self.exit_code, worker=worker)


class Vigil:
    """Begins before a process runs tasks and tells, once it has died, of what. `root` is where `/proc` is."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._kills = MemoryKills(root)
        self._before = self._kills.count()

    def again(self) -> None:
        """The process is given more to do: what the kernel has killed until now was something else."""
        self._before = self._kills.count()

    def death(self, code: int, peak_memory: int, last_words: str = "") -> Death:
        """Return the death of a process that ended with this code (negative: signal) and has been collected."""
        if code >= 0:
            return Death(code, None, peak_memory, last_words=last_words)
        name = how_it_ended(code)
        if name != "SIGKILL" or self._kills.count() <= self._before:
            return Death(None, name, peak_memory, last_words=last_words)
        return Death(None, name, peak_memory, True, self._kills.limit(), last_words)  # noqa: FBT003 - a dataclass's field


def peak_memory_of(usage: resource.struct_rusage) -> int:
    """Return the bytes that a collected process held at most."""
    return usage.ru_maxrss * _MEMORY_UNIT
