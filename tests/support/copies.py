"""Real processes of a deployment in a few milliseconds each: copies of one process that has loaded everything.

`python -m tests.support.copies FD` loads what schedulers, workers and clients load, once. For each
request on the socket FD it forks a process that is then what it is asked to be: environment, directory, session,
streams and signals of its own, the same entry function as the command's. What it starts itself are ordinary programs.
All have the same key prefix, which RQ reads when it is imported; each deployment has a database of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
_POLL_SECONDS = 0.01
_LOADED = (
    "overnight.commands.carry",
    "overnight.commands.run",
    "overnight.commands.work",
    "overnight.queue_executor",
    "overnight.service.main",
    "overnight_worker.main",
    "tests.support.stamped",
)


class Started:
    """A process that was started: its id, and its status when it has ended (negative: the signal)."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.pid = 0
        self.status: int | None = None
        self.told = threading.Event()
        self.over = threading.Event()

    def wait(self, seconds: float = SECONDS) -> int:
        """Wait for its end; return its status."""
        assert self.over.wait(seconds), f"process {self.pid} did not end; it said:\n{self.said()}"
        assert self.status is not None
        return self.status

    def tell(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if not self.over.is_set():
            os.kill(self.pid, number)

    def said(self) -> str:
        """What it has printed, standard error too."""
        return self.out.read_text("utf-8", "backslashreplace")


class Nursery:
    """The process that forks, and what came of its copies; for use by several threads."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OVERNIGHT_")}
        command = [sys.executable, "-m", "tests.support.copies", str(theirs.fileno())]
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()
        self._channel = ours
        self._lock = threading.Lock()
        self._asked: dict[int, Started] = {}
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(self, kind: str, words: Sequence[str], environ: Mapping[str, str], directory: Path, out: Path) -> Started:
        """Start a ``scheduler``, ``worker`` or ``client`` with these arguments; it writes all it says to `out`."""
        started = Started(out)
        with self._lock:
            number = len(self._asked)
            self._asked[number] = started
            request = [number, kind, list(words), dict(environ), str(directory), str(out)]
            self._channel.sendall(json.dumps(request).encode() + b"\n")
        assert started.told.wait(SECONDS), "the nursery does not answer"
        return started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._channel.shutdown(socket.SHUT_RDWR)
        self._process.wait(SECONDS)
        self._listener.join(SECONDS)
        self._channel.close()

    def _listen(self) -> None:
        with self._channel.makefile("rb") as lines:
            for line in lines:
                number, pid, status = json.loads(line)
                started = self._asked[number]
                started.pid, started.status = pid, status
                started.told.set()
                if status is not None:
                    started.over.set()


def _scheduler(_words: Sequence[str]) -> int:
    from overnight.config import read_settings
    from overnight.service.main import main

    return main(read_settings())


def _worker(words: Sequence[str]) -> int:
    from overnight_worker.main import main

    sys.argv = ["overnight worker", *words]
    main()
    return 0


def _client(words: Sequence[str]) -> int:
    from overnight.commands import main

    sys.argv = ["overnight", *words]
    return main(words)


_KINDS: dict[str, Callable[[Sequence[str]], int]] = {"scheduler": _scheduler, "worker": _worker, "client": _client}


def _load() -> None:
    for name in _LOADED:
        importlib.import_module(name)
    from overnight.transport.rq import load_rq

    load_rq("overnight")
    importlib.import_module("overnight_worker.daemon")


def _become(kind: str, words: Sequence[str], environ: Mapping[str, str], directory: str, out: str) -> int:
    os.setsid()
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(directory)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    said = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in ((0, nowhere), (1, said), (2, said)):
        os.dup2(source, target)
    try:
        return _KINDS[kind](words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def _fork(request: Sequence[Any], channel: socket.socket) -> int:
    pid = os.fork()
    if pid == 0:
        channel.close()
        status = 1
        try:
            status = _become(*request)
            threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does at its end
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return pid


def _serve(channel: socket.socket) -> None:
    import gc

    gc.freeze()
    waiting = b""
    living: dict[int, int] = {}
    while True:
        if select.select([channel], [], [], _POLL_SECONDS)[0]:
            received = channel.recv(65536)
            if not received:
                return
            *lines, waiting = (waiting + received).split(b"\n")
            for line in lines:
                number, *request = json.loads(line)
                pid = _fork(request, channel)
                living[pid] = number
                channel.sendall(json.dumps([number, pid, None]).encode() + b"\n")
        while living and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            number = living.pop(ended[0])
            status = os.waitstatus_to_exitcode(ended[1])
            channel.sendall(json.dumps([number, ended[0], status]).encode() + b"\n")


if __name__ == "__main__":
    _load()
    with socket.socket(fileno=int(sys.argv[1])) as served:
        _serve(served)
