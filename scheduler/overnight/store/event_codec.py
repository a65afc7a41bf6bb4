"""How entries of a run's event stream are written on the server. Pure functions, no I/O."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from overnight.core.states import RunPhase, TaskState
from overnight.errors import DamagedRun
from overnight.store.codec import Cursor, of_known_form, unpacked_index, unpacked_sequence, unpacked_tasks
from overnight.store.records import Committed, Happening, Report, Request, RunEvent

_COMMITTED: Final = struct.Struct(">IBd32s")
_OK, _HOPELESS, _DIED = 1, 2, 4


def packed_report(report: Report) -> bytes:
    """Return a report as events carry it: 45 bytes."""
    flags = (_OK if report.ok else 0) | (_HOPELESS if report.hopeless else 0) | (_DIED if report.died else 0)
    seconds = math.nan if report.seconds is None else report.seconds
    return _COMMITTED.pack(report.task, flags, seconds, report.digest if report.ok else b"")


def _unpacked_lost(text: bytes | None) -> Mapping[int, Sequence[int]]:
    """Return which tasks lacked the results of which others."""
    pairs = (one.split(b":") for one in text.split(b";")) if text else ()
    return {unpacked_index(task): unpacked_tasks(lost) for task, lost in pairs}


def _unpacked_reports(packed: bytes, lost: Mapping[int, Sequence[int]]) -> tuple[Committed, ...]:
    return tuple(
        Committed(
            task,
            bool(flags & _OK),
            digest if flags & _OK else b"",
            None if math.isnan(seconds) else seconds,
            bool(flags & _HOPELESS),
            bool(flags & _DIED),
            lost.get(task, ()),
        )
        for task, flags, seconds, digest in _COMMITTED.iter_unpack(packed)
    )


def _unpacked_verdicts(text: bytes | None) -> tuple[tuple[int, TaskState, int | None], ...]:
    if not text:
        return ()
    triples = (verdict.split(b":") for verdict in text.split(b","))
    return tuple(
        (unpacked_index(task), TaskState(code[0]), unpacked_index(cause) if cause else None)
        for task, code, cause in triples
    )


def _text(entry: Mapping[bytes, bytes], name: bytes) -> str | None:
    return entry[name].decode("utf-8") if name in entry else None


@of_known_form
def unpacked_event(run_id: str, entry_id: bytes, entry: Mapping[bytes, bytes]) -> RunEvent:
    """Return the event of a stream entry."""
    request, phase = _text(entry, b"q"), _text(entry, b"p")
    return RunEvent(
        run_id,
        Cursor(entry_id.decode("ascii"), int(entry[b"n"])).text,
        Happening(entry[b"w"].decode("ascii")),
        batch=_text(entry, b"b"),
        worker=_text(entry, b"i"),
        tasks=unpacked_tasks(entry.get(b"t")),
        reports=_unpacked_reports(entry.get(b"c", b""), _unpacked_lost(entry.get(b"m"))),
        verdicts=_unpacked_verdicts(entry.get(b"v")),
        request=None if request is None else Request(request),
        phase=None if phase is None else RunPhase(phase),
        begun=entry.get(b"g") == b"1",
        invalidations=unpacked_sequence(entry.get(b"l", b"0")),
    )


def with_gaps(run_id: str, cursor: Cursor, events: Sequence[Any]) -> list[RunEvent]:
    """Return `events` (id, entry) after `cursor`, with a GAP before each one whose predecessor was missed."""
    told: list[RunEvent] = []
    last = cursor
    for entry_id, entry in events:
        try:
            event = unpacked_event(run_id, entry_id, entry)
        except DamagedRun:
            # What stands there is none of overnight's; what it may have replaced was missed.
            last = Cursor(entry_id.decode("ascii"), last.number)
            told.append(RunEvent(run_id, last.text, Happening.GAP))
            continue
        here = Cursor.parse(event.cursor)
        if here.number != last.number + 1:
            told.append(RunEvent(run_id, Cursor(last.entry_id, here.number - 1).text, Happening.GAP))
        told.append(event)
        last = here
    return told
