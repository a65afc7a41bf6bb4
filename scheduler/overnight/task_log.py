"""The log of one attempt: its own records and nothing else, in a file that exists once there is something to say.

One handler, the router, sits on the root logger while any attempt is logged. It hands a record to the attempt that
the context of the calling thread belongs to. Threads started by a task have no such context: their records go to
the only attempt of the process if that owns the whole process, or if the thread began after it.

Levels are lowered on the root logger when an attempt asks for more than it lets through, and restored when the last
attempt ends. An error of logging never reaches the task: a log that cannot be opened is reported once and dropped.
An attempt that writes more than `OVERNIGHT_TASK_LOG_BYTES` finds a notice at the end of its log in place of the rest.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import cache
from typing import Any, Self

from overnight.certificates import LONGEST_TAIL_BYTES, last_part
from overnight.config import task_log_bytes
from overnight.naming import log_name, shown
from overnight.output_capture import OutputCapture

TRACE = 5
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG, TRACE)

_logger = logging.getLogger(__name__)
#: Of what overnight itself says of an attempt, a few lines, nothing is left out.
_ALWAYS_LOGGED = "task_executor"
_NOTICE = "\n---- The log ends here: the task wrote more than OVERNIGHT_TASK_LOG_BYTES={most}; the rest is left out.\n"


def level_of(verbosity: int | None) -> int:
    """Return the logging level of a verbosity: 0 or None WARNING, 1 INFO, 2 DEBUG, 3 and more TRACE (N2)."""
    return _LEVELS[max(0, min(verbosity or 0, len(_LEVELS) - 1))]


class TaskLog:
    """A context that gathers the log records of one attempt; with `log_dir` None it does nothing.

    `started` is when the attempt began, in seconds since the epoch: now, unless another process has begun it.
    """

    whole_process = False
    capture: OutputCapture | None = None

    def __init__(
        self,
        task_id: str,
        log_dir: str | None,
        verbosity: int | None,
        *,
        run_id: str = "",
        attempt: int = 1,
        started: float | None = None,
    ) -> None:
        self.task_id = task_id
        self.log_dir = log_dir
        self.verbosity = verbosity or 0
        self.level = level_of(verbosity)
        self.run_id = run_id
        self.attempt = attempt
        self.started = time.time() if started is None else started
        self._handler: logging.Handler | None = None
        self._token: Token[TaskLog | None] | None = None
        self._older_threads: frozenset[threading.Thread] = frozenset()
        self._room = _most_bytes()
        self._is_full = False
        self._tail = ""

    def __enter__(self) -> Self:
        if self.log_dir is not None:
            if threading.active_count() > 1:
                self._older_threads = frozenset(threading.enumerate())
            self._token = _current.set(self)
            _router.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._write_captured()
        self._has_room()
        if self._token is not None:
            _router.remove(self)
            _current.reset(self._token)
            self._token = None
        if self._handler is not None:
            self._handler.close()
            # It refers to this log, and nothing else would part the two.
            self._handler.setFormatter(None)

    def owns_thread(self, thread: threading.Thread) -> bool:
        """Tell whether a thread without context can only be this attempt's."""
        return self.whole_process or thread not in self._older_threads

    def handle(self, record: logging.LogRecord) -> None:
        """Write a record that is this attempt's."""
        if record.levelno >= self.level:
            self._write_captured()
            handler = self._open()
            if self._has_room() or record.name == _ALWAYS_LOGGED:
                handler.handle(record)

    @property
    def room(self) -> int:
        """How many bytes may still be written."""
        return max(0, self._room)

    def tail(self) -> str:
        """Return the end of what the attempt has printed and logged so far; nothing where no output is captured."""
        self._write_captured()
        return last_part(self._tail)

    def _note(self, text: str) -> None:
        """Keep the end of a text that the attempt has written."""
        if self.capture is not None:
            self._tail = (self._tail + text[-2 * LONGEST_TAIL_BYTES :])[-2 * LONGEST_TAIL_BYTES :]

    def write(self, text: str) -> None:
        """Write text as it is: output of the task, or the reason of its death."""
        self._note(text)
        handler = self._open()
        if isinstance(handler, logging.StreamHandler) and self._has_room():
            data = text.encode("utf-8", "backslashreplace")
            wanted = text if len(data) <= self._room else data[: self._room].decode("utf-8", "ignore")
            self._room -= len(data)
            _write_text(handler, wanted)

    def take_room(self, text: str) -> None:
        """Count a text that is written to the log as a line of its own."""
        self._note(f"{text}\n")
        self._room -= len(text.encode("utf-8", "backslashreplace"))

    def _has_room(self) -> bool:
        """Tell whether more may be written; say so in the log when that ends."""
        if self._room < 0 and not self._is_full:
            self._is_full = True
            handler = self._open()
            if isinstance(handler, logging.StreamHandler):
                _write_text(handler, _NOTICE.format(most=_most_bytes()))
        return not self._is_full

    def _write_captured(self) -> None:
        if self.capture is None:
            return
        try:
            self._move_captured(self.capture)
        except Exception as error:  # a task may have closed descriptors that are not its own: its output is lost
            _logger.warning("The output of task %s is lost: %s", shown(self.task_id), error)

    def _move_captured(self, capture: OutputCapture) -> None:
        if self.log_dir is None:
            self._note(capture.pass_on(_most_bytes()).decode("utf-8", "backslashreplace"))
            return
        for piece in capture.drain(max(0, self._room + 1)):
            self.write(piece.decode("utf-8", "backslashreplace"))

    def _open(self) -> logging.Handler:
        if self._handler is None:
            self._handler = logging.NullHandler()
            self._handler = self._opened_file()
        return self._handler

    def _opened_file(self) -> logging.Handler:
        # Imported here, because that module offers this one's context under its own name.
        from overnight.logging import configure_task_logging

        try:
            name = log_name(self.task_id).removeprefix("log_").removesuffix(".log")
            handler = configure_task_logging(self.log_dir, name, self.verbosity)
        except Exception as error:  # logging must not fail a task, whatever the file system raises
            _report_unusable(str(self.log_dir), error)
            return logging.NullHandler()
        handler.setFormatter(TaskFormatter(self.task_id, self.take_room))
        if isinstance(handler, logging.StreamHandler):
            _write_text(handler, self._separator())
        return handler

    def _separator(self) -> str:
        began = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(self.started))
        return f"---- {shown(self.task_id)} run {self.run_id or '-'} attempt {self.attempt} {began}\n"


def _write_text(handler: logging.StreamHandler[Any], text: str) -> None:
    try:
        handler.stream.write(text)
        handler.flush()
    except Exception:  # as in every handler of logging: reported there, never raised
        handler.handleError(logging.makeLogRecord({"msg": "text of a task"}))


class TaskFormatter(logging.Formatter):
    """Lines `<task_id>: time logger level message`; the id never passes through a template (I7). `count` gets each."""

    def __init__(self, task_id: str, count: Callable[[str], None] | None = None) -> None:
        super().__init__("%(asctime)s %(name)s %(levelname)s %(message)s")
        self._prefix = f"{shown(task_id)}: "
        self._count = count

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, with its traceback below."""
        text = self._prefix + super().format(record)
        if self._count is not None:
            self._count(text)
        return text


@cache
def _most_bytes() -> int:
    """Return how much one attempt may write to its log."""
    return task_log_bytes(os.environ)


_unusable: set[str] = set()


def _report_unusable(log_dir: str, error: Exception) -> None:
    if log_dir not in _unusable:
        _unusable.add(log_dir)
        _logger.warning("Task logs cannot be written to %s, tasks run without: %s", shown(log_dir), error)


_current: ContextVar[TaskLog | None] = ContextVar("overnight_task_log", default=None)


class _Router(logging.Handler):
    """Hands each record to the attempt that it belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self._guard = threading.Lock()
        self._active: list[TaskLog] = []
        self._former_level: int | None = None

    def add(self, log: TaskLog) -> None:
        root = logging.getLogger()
        with self._guard:
            self._active.append(log)
            if len(self._active) == 1:
                root.addHandler(self)
            if root.level > log.level:
                if self._former_level is None:
                    self._former_level = root.level
                root.setLevel(log.level)

    def remove(self, log: TaskLog) -> None:
        root = logging.getLogger()
        with self._guard:
            self._active.remove(log)
            if self._active:
                return
            root.removeHandler(self)
            if self._former_level is not None:
                root.setLevel(self._former_level)
                self._former_level = None

    def handle(self, record: logging.LogRecord) -> bool:
        log = self.owner()
        if log is None:
            return False
        try:
            log.handle(record)
        except Exception:  # as in every handler of logging: reported there, never raised to the task that logs
            self.handleError(record)
        return True

    def owner(self) -> TaskLog | None:
        """Return the attempt that the calling thread's records belong to."""
        return _current.get() or self._only_owner(threading.current_thread())

    def _only_owner(self, thread: threading.Thread) -> TaskLog | None:
        owners = [log for log in self._active if log.owns_thread(thread)]
        return owners[0] if len(owners) == 1 else None


_router = _Router()


def is_for_process(_record: logging.LogRecord) -> bool:
    """Tell whether a record that is logged here and now belongs to no attempt's log: a filter for other handlers.

    Where a process's streams are captured into the same log, its own handlers would write each record there again.
    """
    return _router.owner() is None
