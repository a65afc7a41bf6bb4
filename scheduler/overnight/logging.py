"""Log files of tasks: where they lie, what they are called, how they are written (BEHAVIOUR N1 to N5).

The file of a task is `log_<file name>.log` in the log directory, a path or fsspec URL. `TaskLog` (module `task_log`)
decides which records belong to which attempt and opens the file on the first of them.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from overnight.errors import Unreachable
from overnight.files import see_writable, url_shown
from overnight.naming import file_name, safe_task_id
from overnight.task_log import TRACE, TaskFormatter, TaskLog, level_of

__all__ = ["TRACE", "FsspecHandler", "TaskLog", "configure_task_logging", "ensure_log_dir", "safe_task_id", "task_log"]

DEFAULT_LOG_DIR = ".task-log"
_SAFE_COMPONENT = re.compile(r"[^/\\:\x00-\x1f\x7f]{1,200}")

logging.addLevelName(TRACE, "TRACE")


def _is_url(path: str) -> bool:
    """Tell an fsspec URL (`scheme://...`) from a path."""
    return "://" in path


def ensure_log_dir(**kwargs: Any) -> str:
    """Return the log directory, made with its parents: `task_log_dir`, or `.task-log` in the current directory (N1).

    Paths come back absolute, URLs unchanged. Any number of processes may call this at once. Raises OSError if it cannot
    be made, or if no file can be made there.
    """
    wanted = str(kwargs.get("task_log_dir") or DEFAULT_LOG_DIR)
    if _is_url(wanted):
        _make_remote(wanted)
        return wanted
    absolute = Path(wanted).absolute()
    absolute.mkdir(parents=True, exist_ok=True)
    see_writable(str(absolute))
    return str(absolute)


def _make_remote(url: str) -> None:
    try:
        system, path = _file_system(url)
        system.makedirs(path, exist_ok=True)
    except OSError:
        raise
    except Exception as error:  # an unknown protocol, a missing package, or whatever else a store's library raises
        raise Unreachable(f"The log directory {url_shown(url)} cannot be used: {error}") from error


def configure_task_logging(log_dir: str | None, task_id: str, verbosity: int | None) -> logging.Handler:
    """Return the handler that appends to a task's log file; a NullHandler if `log_dir` is None (N2). Raises OSError."""
    if log_dir is None:
        return logging.NullHandler()
    name = task_id if _is_safe_component(task_id) else file_name(task_id)
    handler = FsspecHandler(f"{log_dir}{'' if log_dir.endswith('/') else '/'}log_{name}.log")
    handler.setLevel(level_of(verbosity))
    handler.setFormatter(TaskFormatter(task_id))
    return handler


def _is_safe_component(name: str) -> bool:
    fits = _SAFE_COMPONENT.fullmatch(name) is not None and len(name.encode("utf-8", "replace")) <= 200
    return fits and name not in {".", ".."}


def task_log(
    task_id: str,
    log_dir: str | None,
    verbosity: int | None = 0,
    *,
    run_id: str = "",
    attempt: int = 1,
    started: float | None = None,
) -> TaskLog:
    """Return a context in which the calling thread's log records go to the task's log (N4)."""
    return TaskLog(task_id, log_dir, verbosity, run_id=run_id, attempt=attempt, started=started)


class FsspecHandler(logging.StreamHandler[Any]):
    """Appends records to a file, a path or fsspec URL in an existing directory; `close` may be repeated (N3)."""

    def __init__(self, logfile: str) -> None:
        super().__init__(_open_for_append(logfile))

    def close(self) -> None:
        """Flush and close the file. Errors are reported the way logging does, not raised."""
        stream, self.stream = self.stream, None
        if stream is not None:
            try:
                stream.close()
            except Exception:  # a full disk or lost store must not fail the task that logged
                self.handleError(logging.makeLogRecord({"msg": "closing a task log"}))
        super().close()

    def flush(self) -> None:
        """Pass buffered text on to the file, as far as its store can."""
        if self.stream is not None:
            super().flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; nothing once the file is closed."""
        if self.stream is not None:
            super().emit(record)


def _open_for_append(logfile: str) -> IO[str]:
    if not _is_url(logfile):
        return Path(logfile).open("a", encoding="utf-8", errors="backslashreplace")
    system, path = _file_system(logfile)
    try:
        stream = system.open(path, "a", encoding="utf-8", errors="backslashreplace")
    except (NotImplementedError, ValueError):
        stream = _rewritten(system, path)
    return cast("IO[str]", stream)


def _rewritten(system: Any, path: str) -> IO[str]:
    """Open a file of a store that cannot append: its former content is written again first."""
    former = ""
    with suppress(FileNotFoundError):
        former = system.cat_file(path).decode("utf-8", "backslashreplace")
    stream = cast("IO[str]", system.open(path, "w", encoding="utf-8", errors="backslashreplace"))
    stream.write(former)
    return stream


def _file_system(url: str) -> tuple[Any, str]:
    # Imported here: local logs need no fsspec, and it is slow to load.
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    return system, path
