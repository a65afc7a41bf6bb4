"""The log of one task in one run, wherever its attempts ran: from the log directory as far as it can be seen from here,
else what the server keeps of failed attempts: the end of what each printed and logged, and what ended it.

A file holds the attempts of all runs of a task; each begins with a separator line. What comes from the server is data
of somebody else: it is shown with control characters escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from overnight.certificates import DeathCertificate, last_part
from overnight.commands.causes import short_type
from overnight.commands.screen import moment, span
from overnight.files import is_url
from overnight.log_files import end_of_log, open_log
from overnight.log_tails import added_to
from overnight.naming import shown, without_controls
from overnight.store.records import RunRecord

#: The end of a log in which its last attempt is looked for.
_LAST_BYTES = 1 << 20


@dataclass(slots=True)
class LogFile:
    """A task's log in the log directory; `place` is a path or URL. Reads go on from where the last one ended.

    `is_forbidden` says that the last read found a file, or a directory, that this user may not look into.
    """

    place: str
    position: int = 0
    is_forbidden: bool = False

    def read(self) -> str | None:
        """Return what was added since the last read; None if no such file can be seen from here. Raises OSError."""
        self.is_forbidden = False
        try:
            data = self._bytes()
        except FileNotFoundError:
            return None
        except PermissionError:
            self.is_forbidden = True
            return None
        self.position += len(data)
        return data.decode("utf-8", "backslashreplace")

    def _bytes(self) -> bytes:
        if not is_url(self.place):
            with open_log(self.place) as local:
                local.seek(self.position)
                return local.read()
        import fsspec

        with fsspec.open(self.place, "rb") as remote:
            data: bytes = remote.read()
        return data[self.position :]


@dataclass(frozen=True, slots=True)
class Section:
    """What one attempt wrote, with its separator line."""

    attempt: int
    text: str


def sections_of(text: str, run_id: str, task_id: str) -> list[Section]:
    """Return what the attempts of one run wrote, in the order of the file."""
    separator = re.compile(rf"^---- {re.escape(shown(task_id))} run (\S+) attempt (\d+) [^\n]*$", re.MULTILINE)
    starts = list(separator.finditer(text))
    ends = [match.start() for match in starts[1:]] + [len(text)]
    stretches = zip(starts, ends, strict=False)
    return [Section(int(match[2]), text[match.start() : end]) for match, end in stretches if match[1] == run_id]


def last_of(place: str | None, run_id: str, task_id: str, attempt: int) -> tuple[float | None, str] | None:
    """Return when an attempt began and the end of what it wrote, from a local log; None if that cannot be seen."""
    if place is None or is_url(place):
        return None
    try:
        text, _ = end_of_log(place, _LAST_BYTES)
    except OSError:
        return None
    found = [
        section.text.partition("\n") for section in sections_of(text, run_id, task_id) if section.attempt == attempt
    ]
    if not found:
        return None
    return _moment_of(found[0][0]), last_part("".join(text for _, _, text in found))


def _moment_of(separator: str) -> float | None:
    """Return the time at the end of a separator line, None if there is none."""
    try:
        return datetime.strptime(" ".join(separator.split()[-3:]), "%Y-%m-%d %H:%M:%S %z").timestamp()
    except ValueError:
        return None


def parted(text: str, run_id: str, task_id: str) -> list[Section]:
    """Return all of a text: what goes before the first attempt of the run that begins in it, then one attempt each."""
    separator = re.compile(
        rf"^---- {re.escape(shown(task_id))} run {re.escape(run_id)} attempt (\d+) [^\n]*$", re.MULTILINE
    )
    starts = list(separator.finditer(text))
    ends = [*(match.start() for match in starts), len(text)]
    attempts = [Section(int(match[1]), text[match.start() : end]) for match, end in zip(starts, ends[1:], strict=True)]
    return [Section(0, text[: ends[0]]), *attempts]


def kept_of(
    certificate: DeathCertificate, run: RunRecord, task_id: str, traceback: str, told: str = ""
) -> Iterator[str]:
    """Yield the lines that tell of an attempt whose log is not at hand, control characters escaped.

    `traceback` is that of its error, empty if another attempt's error has taken its place; `told` is what was told of
    its last lines while it ran, which is left out.
    """
    when = "" if certificate.ended is None else f" {moment(certificate.ended)}"
    tail, is_amid_line = certificate.tail.rstrip("\n"), not told.endswith("\n")
    rest = added_to(told.rstrip("\n"), tail) if told else None
    if rest is None:
        yield shown(f"---- {task_id} run {run.run_id} attempt {certificate.attempt}{when} (from the server)")
        rest = tail
    elif is_amid_line:
        first, _, rest = rest.partition("\n")
        yield shown(first)
    for line in rest.removeprefix("\n" if told else "").split("\n") if rest else ():
        yield shown(line)
    yield shown(f"{task_id}: {summary_of(certificate)}")
    for line in traceback.rstrip("\n").split("\n") if traceback else ():
        yield shown(line)


def summary_of(certificate: DeathCertificate) -> str:
    """Return on one line what ended an attempt, where, after how long, and how much memory it had held."""
    first = certificate.message.partition("\n")[0]
    took = "" if certificate.seconds is None else f" after {span(certificate.seconds)}"
    worker = f" on worker {certificate.worker}" if certificate.worker else ""
    place = f" ({certificate.place})" if certificate.place else ""
    peak = f", peak memory {certificate.peak_memory / 1e6:.0f} MB" if certificate.peak_memory else ""
    return f"ended by {certificate.ended_by}{took}{worker}{peak}: {short_type(certificate)}: {first}{place}"


def harmless(text: str) -> str:
    """Return the text with what could steer a terminal escaped; lines, tabs and backslashes stay, so that what was made
    harmless already stays as it is."""
    return "\t".join(map(without_controls, text.split("\t")))
