"""Runs the command `overnight` as people do: a process of its own, in a directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.embedded import EmbeddedServer
from overnight.fleet_files import STOP, fleet_files
from overnight.local_fleet import ensure_fleet
from overnight.state_dir import is_locked, wait_until

ROOT = Path(__file__).parents[2]
SECONDS = 90.0
_LEFT_OUT = ("OVERNIGHT_", "NO_COLOR", "FORCE_COLOR")


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON on the last line of standard output, which names its shape."""
        found: dict[str, Any] = json.loads(self.out.strip().splitlines()[-1])
        return found

    @property
    def facts(self) -> Any:
        """What that JSON tells: its members beside the name of the shape; where that is one list, the list."""
        told = {name: value for name, value in self.document.items() if name != "schema"}
        [*values] = told.values()
        return values[0] if len(values) == 1 and isinstance(values[0], list) else told

    @property
    def sentence(self) -> str:
        """The one line on standard error, which must be one."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("overnight: ")
        return lines[0]


class Desk:
    """A directory in which commands are typed. `environ` is added to each one's environment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ: dict[str, str] = {}

    @property
    def state_dir(self) -> Path:
        return self.directory / ".overnight"

    def start(self, *words: str, inside: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
        """Start a command; its output is collected. The words of `inside` go before it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
        environment |= {"PYTHONPATH": str(ROOT), "OVERNIGHT_IDLE_SECONDS": "5", **self.environ}
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        command = [*inside, sys.executable, "-P", "-m", "overnight.commands", *words]
        return subprocess.Popen(
            command, cwd=self.directory, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, **given
        )

    def run(self, *words: str) -> Finished:
        """Carry out a command."""
        return finished(self.start(*words))

    def close(self) -> None:
        """End the local processes that the commands left, and wait for that."""
        files = fleet_files(self.state_dir, None)

        def is_over() -> bool:
            files.tell_keeper(STOP)
            return not is_locked(files.keeper_lock)

        if self.state_dir.exists():
            assert wait_until(is_over, SECONDS), "the keeper did not end"
            EmbeddedServer(self.state_dir).stop()


def finished(process: subprocess.Popen[str]) -> Finished:
    """Wait for a command that was started."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the command did not end; it said: {out}\n{err}") from None
    return Finished(process.returncode, out, err)


@contextmanager
def desk(directory: Path) -> Iterator[Desk]:
    """Give a desk in a new directory; what commands leave running there is ended."""
    directory.mkdir(parents=True, exist_ok=True)
    given = Desk(directory)
    try:
        yield given
    finally:
        given.close()


@contextmanager
def staffed_desk(directory: Path, flow: str) -> Iterator[Desk]:
    """Give a desk with this module as ``flow.py``, whose two workers stay from command to command."""
    with desk(directory) as given:
        (given.directory / "flow.py").write_text(flow)
        lease = ensure_fleet(given.state_dir, workers=2)
        yield given
        lease.close(stop=False)
