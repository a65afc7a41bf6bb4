"""A process for a slot: notes that it runs, may leave a child behind, and ends by SIGTERM.

Called as ``slot_process.py DIRECTORY [--queue QUEUE]``. When it holds its slot, it appends ``<pid> <queue>`` to
``DIRECTORY/started`` and what its environment says to ``DIRECTORY/environment``; when it ends in order, ``<pid>`` to
``DIRECTORY/drained``. A file ``DIRECTORY/die`` makes it say so and end at once with status 3; ``DIRECTORY/stubborn``
makes it ignore SIGTERM; ``DIRECTORY/offspring`` makes it fork a process that outlives it and append the id of that to
``DIRECTORY/forked``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from overnight.slots import SLOT_VARIABLE, hold_slot


def main() -> int:
    """Do as the module says."""
    if hold_slot() is None:
        return 4
    directory = Path(sys.argv[1])
    queue = sys.argv[3] if len(sys.argv) > 3 else "-"
    stops = {signal.SIGTERM} if not (directory / "stubborn").exists() else set()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if (directory / "offspring").exists():
        _fork_one_that_stays(directory)
    told = [os.environ.get(name) for name in ("OVERNIGHT_REDIS_URL", "OVERNIGHT_STATE_DIR", SLOT_VARIABLE)]
    _append(directory / "environment", " ".join(map(str, told)))
    _append(directory / "started", f"{os.getpid()} {queue}")
    if (directory / "die").exists():
        print("told to die", file=sys.stderr)
        return 3
    signal.sigwait(stops or {signal.SIGUSR2})
    _append(directory / "drained", str(os.getpid()))
    return 0


def _fork_one_that_stays(directory: Path) -> None:
    child = os.fork()
    if child:
        _append(directory / "forked", str(child))
        return
    signal.sigwait({signal.SIGTERM})
    os._exit(0)


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
