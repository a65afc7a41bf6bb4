"""The warm child: the process in which tasks run, one after the other (``python -m overnight_worker.child``).

It holds no key, no address and no connection but the socket pair to its supervisor. It enters a run's surroundings,
loads each function once, and per task: notes in the shared page what it runs, loads arguments and dependency results,
calls the function inside the task's log, sends the serialised outcome, and puts its surroundings right. Everything
that can go wrong on the way is that task's failure. Whatever ends this process charges the task in the page.

The process dies with its supervisor: the kernel sends SIGKILL when the supervisor ends, and the pipe closes.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any

from overnight import failpoints
from overnight.invoke import Outcome
from overnight.output_capture import OutputCapture
from overnight.surroundings import host_environment
from overnight.task_log import is_for_process
from overnight.task_surroundings import Surroundings
from overnight_worker.attempts import Attempts, Order
from overnight_worker.forked_attempt import run_forked
from overnight_worker.frames import Frame, FrameReader, Kind, pack
from overnight_worker.kinship import end_with_parent
from overnight_worker.memory_kills import be_taken_first
from overnight_worker.modules import LoadedModules
from overnight_worker.outcomes import packed_failure, packed_outcome
from overnight_worker.progress import Progress

_OWN_PATHS = tuple(sys.path)
_HOST_ENVIRONMENT = host_environment(os.environ)


def _surroundings_of(context: Mapping[str, Any]) -> Surroundings:
    """Return a run's surroundings here: its import paths before our own, its variables but those of this host."""
    first = context["import_paths"]
    paths = [*first, *(path for path in _OWN_PATHS if path not in first)]
    environment = {**_HOST_ENVIRONMENT, **context["environment"]}
    return Surroundings(context["directory"], context["umask"], environment, paths)


class Child:
    """The loop of the process: frames in, outcomes out."""

    def __init__(self, channel: socket.socket, progress: Progress, capture: OutputCapture, worker: str) -> None:
        self._channel = channel
        self._reader = FrameReader(channel)
        self._progress = progress
        self._capture = capture
        self._attempts = Attempts(worker, capture)
        self._modules = LoadedModules()
        self._surroundings: Surroundings | None = None
        self._obstacle: OSError | None = None
        self._isolated = False
        self._is_stale = False

    def run(self) -> None:
        """Serve the supervisor until it closes the channel."""
        self._send(pack(Kind.READY, {"pid": os.getpid()}))
        while (frames := self._reader.receive()) is not None:
            for frame in frames:
                if not self._is_stale:
                    self._handle(frame)

    def _handle(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.CONTEXT:
                self._enter(frame.fields())
            case Kind.BLOB:
                self._attempts.blobs[frame.fields()["digest"]] = frame.body
            case Kind.FORGET:
                self._attempts.forget()
            case Kind.BATCH:
                self._run_batch(frame)
            case _:
                raise ValueError(f"A child is not told {frame.kind.name}.")

    def _enter(self, context: dict[str, Any]) -> None:
        if self._modules.have_changed():
            # What follows was meant for this run: it must not run with old code.
            self._is_stale = True
            self._send(pack(Kind.STALE))
            return
        self._isolated = context["isolated"]
        self._attempts.enter(context["run"], context["log_dir"], context["verbosity"])
        self._surroundings = _surroundings_of(context)
        self._settle()

    def _settle(self) -> None:
        self._obstacle = None
        try:
            if self._surroundings is not None:
                self._surroundings.settle()
        except OSError as error:
            self._obstacle = error

    def _run_batch(self, frame: Frame) -> None:
        orders = self._attempts.read_batch(frame)
        run = 0
        failed: set[int] = set()
        for order in orders:
            if run:
                failpoints.reach("child.between_batch_members")
            self._progress.start(order.position)
            if self._progress.is_stopped or not failed.isdisjoint(order.after):
                failed.add(order.position)
                continue
            self._progress.begin(order.position)
            run += 1
            message, ok = self._perform(order)
            self._progress.clear()
            failpoints.reach("child.before_outcome")
            self._send(message)
            if not ok:
                failed.add(order.position)
            self._capture.restore()
            self._settle()
        self._progress.clear()
        self._attempts.end_batch()
        self._modules.note()
        self._send(pack(Kind.ENDED, {"tasks": run, **_remains()}))

    def _perform(self, order: Order) -> tuple[bytes, bool]:
        if self._obstacle is not None:
            return packed_failure(
                order.position, Outcome(ok=False, value=self._obstacle, started=0.0, seconds=0.0)
            ), False
        if self._isolated:
            return run_forked(self._attempts, order)
        outcome = self._attempts.attempt(order)
        message, ok, body = packed_outcome(order.position, order.task_id, outcome)
        if ok:
            self._attempts.keep(order, body)
        return message, ok

    def _send(self, message: bytes) -> None:
        self._channel.sendall(message)


def _remains() -> dict[str, int]:
    """Return what tasks left behind in this process: threads, and resident memory in bytes."""
    with open("/proc/self/statm", "rb") if sys.platform == "linux" else open(os.devnull, "rb") as file:  # noqa: PTH123 - each batch
        pages = file.read().split()
    memory = int(pages[1]) * resource.getpagesize() if pages else 0
    return {"threads": threading.active_count() - 1, "memory": memory}


def _watch_channel(channel: socket.socket) -> None:
    """End the process group when the supervisor's end closes, where the kernel does not do it."""
    poll = select.poll()
    poll.register(channel, select.POLLHUP)
    poll.poll()
    os.killpg(0, signal.SIGKILL)


def _log_to_stderr() -> None:
    """Print warnings that belong to no task's log; the others are in that log, to which standard error goes too."""
    handler = logging.StreamHandler()
    handler.addFilter(is_for_process)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s", handlers=[handler]
    )


def main(arguments: list[str]) -> None:
    """Run a child. Arguments: descriptors of channel, page and output file; supervisor's pid; worker's name."""
    channel_fd, page_fd, output_fd, supervisor = (int(text) for text in arguments[:4])
    end_with_parent(supervisor, signal.SIGKILL)
    be_taken_first()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in (channel_fd, page_fd, output_fd):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - the function takes no keyword
    progress = Progress(page_fd)
    os.close(page_fd)
    _log_to_stderr()
    failpoints.arm()
    failpoints.disarm_environment()
    failpoints.reach("child.at_start")
    with socket.socket(fileno=channel_fd) as channel, OutputCapture(output_fd) as capture:
        if sys.platform != "linux":
            threading.Thread(target=_watch_channel, args=(channel,), daemon=True).start()
        faulthandler.enable()
        if isinstance(sys.stdout, io.TextIOWrapper):
            # What a task prints is seen while it runs, and is there when it dies.
            sys.stdout.reconfigure(line_buffering=True)
        progress.be_up()
        Child(channel, progress, capture, arguments[4]).run()


if __name__ == "__main__":
    main(sys.argv[1:])
