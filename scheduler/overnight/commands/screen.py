"""What people see: streams that survive their reader, a console without colours where none belong, warnings as lines.

Every text from outside (ids, messages, names) passes `naming.shown` or is printed as a `rich.text.Text`, so that it
is neither markup nor a control sequence.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from overnight.naming import shown

if TYPE_CHECKING:
    from rich.console import Console


#: What a stream says whose reader or terminal has gone away: nobody misses what is not written then.
_NOBODY_READS = frozenset({errno.EPIPE, errno.EIO, errno.EBADF})
#: What a shell shows of a program that a closed pipe has ended.
READER_GONE = 128 + signal.SIGPIPE


class SteadyStream:
    """A text stream that falls silent, instead of failing, when it cannot be written any more.

    `loss` is what took it away, None while it is there.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._ends_with_reader = False
        self.loss: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write text as far as somebody reads it."""
        if self.loss is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        if self.loss is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def end_with_reader(self) -> None:
        """Have a command that does nothing but tell end with READER_GONE as soon as nobody reads it."""
        self._ends_with_reader = True

    def _lose(self, error: OSError) -> None:
        """Send everything, also what the interpreter flushes at its end, to nowhere."""
        self.loss = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if self._ends_with_reader and error.errno == errno.EPIPE:
            raise click.exceptions.Exit(READER_GONE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def steady_streams() -> None:
    """Make standard output and error survive a closed pipe and a terminal that is gone."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the descriptor was closed before the process began
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  # lives as long as the process
        if not isinstance(stream, SteadyStream):
            setattr(sys, name, cast("TextIO", SteadyStream(stream)))


def unwritten() -> str | None:
    """Return why standard output could not be written in full, though somebody wanted it; None if it was."""
    loss = sys.stdout.loss if isinstance(sys.stdout, SteadyStream) else None
    return None if loss is None or loss.errno in _NOBODY_READS else str(loss.strerror or loss)


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or error; nothing but text leaves for what is no terminal, whatever the
    environment asks for (FORCE_COLOR), and no colours with NO_COLOR."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, force_terminal=stream.isatty(), highlight=False, markup=False, emoji=False)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of one-line texts, each column as wide as it needs to be."""
    lines = [titles, *rows]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    texts = []
    for row in lines:
        cells = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        texts.append("  ".join(cells).rstrip())
    say("\n".join(texts))


def _width(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def say(text: str = "") -> None:
    """Print one line on standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def say_to_people(text: str, *, as_json: bool) -> None:
    """Print one line for people: on standard error where standard output is a program's."""
    if as_json:
        _to_stderr(text)
    else:
        say(text)


class _Lines(logging.Handler):
    """Prints records as lines of the command, on standard error unless a display takes them."""

    def __init__(self) -> None:
        super().__init__()
        self._print_line: Callable[[str], None] = _to_stderr

    def print_through(self, display: Callable[[str], None] | None) -> None:
        """Hand lines to a display, or back to standard error."""
        self._print_line = display or _to_stderr

    def emit(self, record: logging.LogRecord) -> None:
        try:
            word = record.levelname.lower()
            self._print_line(f"overnight: {word}: {shown(record.getMessage())}")
        except Exception:  # what cannot be printed must not end what is being told of
            self.handleError(record)


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


WARNING_LINES = _Lines()


def show_warnings(verbosity: int) -> None:
    """Print what overnight logs: warnings; with `verbosity` 1 INFO too, with 2 all."""
    logger = logging.getLogger("overnight")
    if WARNING_LINES not in logger.handlers:
        logger.addHandler(WARNING_LINES)
    logger.propagate = False
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))


def duration(seconds: float) -> str:
    """Return a length of time as people say it: ``4 ms``, ``0.4 s``, ``12 s``, ``3:05``, ``2:03:05``, ``3 d 02:03``."""
    if 0 < seconds < 0.1:
        return span(seconds)
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def span(seconds: float) -> str:
    """Return how long one task took: micro- or milliseconds below a second, else as `duration`."""
    if 0 < seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{max(0.0, seconds) * 1000:.0f} ms" if seconds < 1 else duration(seconds)


def tasks_text(number: int) -> str:
    """Return ``1 task``, ``2 tasks``."""
    return "1 task" if number == 1 else f"{number} tasks"


def moment(seconds: float) -> str:
    """Return a time of the server's clock in this host's zone."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
