"""What the child's frames and the child's end say about a task, in the words of records."""

from __future__ import annotations

import codecs
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from overnight.certificates import BY_TIME_LIMIT, LONGEST_TAIL_BYTES
from overnight.errors import TaskDied, TaskTimedOut
from overnight.files import is_url
from overnight.log_files import end_of_log
from overnight.logging import task_log
from overnight.messages import RunContext, StoredError
from overnight.naming import log_name, shown
from overnight.task_log import TaskLog
from overnight_worker.batch import Ended, Member
from overnight_worker.death import Death
from overnight_worker.frames import Frame, Kind, success_of
from overnight_worker.limits import Verdict
from overnight_worker.report import digest_of, failure

#: So much of the room of a log is left for what is said of the end of an attempt.
ROOM_FOR_THE_END_BYTES = 4096
LEFT_OUT = "---- The beginning of what the process had printed is left out.\n"
_CHUNK_BYTES = 1 << 20
_logger = logging.getLogger("overnight.worker")


def ended_of(frame: Frame) -> tuple[int, Ended]:
    """Return the position in the batch and the outcome that a SUCCESS or FAILURE frame tells."""
    if frame.kind is Kind.SUCCESS:
        success = success_of(frame)
        ended = Ended(frame.body, started=success.started, seconds=success.seconds)
        ended.digest, ended.peak_memory = digest_of(frame.body), success.peak_memory
        return success.position, ended
    fields = frame.fields()
    error = StoredError(fields["type"], fields["message"], fields["traceback"], frame.body)
    ended = Ended(error=error, hopeless=fields["hopeless"], started=fields["started"])
    ended.seconds, ended.peak_memory = fields["seconds"], fields["peak_memory"]
    ended.ended_by, ended.tail = fields["ended_by"], fields["tail"]
    return fields["position"], ended


def ended_by_death(member: Member, death: Death, worker: str, verdict: Verdict | None, since: float | None) -> Ended:
    """Return the outcome of a task that its process has ended with; it began at `since` of the monotonic clock."""
    cause = _cause_of(member, death, worker, verdict)
    ended = failure(cause)
    ended.died = isinstance(cause, TaskDied)
    ended.peak_memory = death.peak_memory
    if since is not None:
        ended.seconds = time.monotonic() - since
        ended.started = time.time() - ended.seconds
    return ended


def _cause_of(member: Member, death: Death, worker: str, verdict: Verdict | None) -> TaskDied | TaskTimedOut:
    """Return the error of a task whose process has ended, by itself or killed at one of the task's limits."""
    if verdict is not None and not verdict.beyond:
        return TaskTimedOut(
            f"The attempt ran longer than its limit of {member.facts.timeout:g} s, ignored its interruption and "
            f"was killed on worker {worker}."
        )
    return death.error(worker)


def note_death(member: Member, ended: Ended, death: Death, output: int, run_id: str, context: RunContext) -> None:
    """Note with the outcome what ended it and what it had written last; tell of the death in the log of the task (N5).

    `output` is the file of what it had printed and not logged yet.
    """
    task = shown(member.facts.task_id)
    _logger.warning("task %s of run %s: %s", task, run_id, death.sentence())
    ended.ended_by = death.ended_by() if ended.died else BY_TIME_LIMIT
    ended.tail = tail_of_log(member, run_id, context, ended.started, LONGEST_TAIL_BYTES) + death.last_words
    with written_to_task_log(member, output, ended.started or None, run_id, context) as log:
        log.write(f"{task}: the process of the task {death.sentence()}\n")


def tail_of_log(member: Member, run_id: str, context: RunContext, started: float, most_bytes: int) -> str:
    """Return the end of what an attempt has written to its log, as far as this host sees it.

    `started` is seconds since the epoch.
    """
    if context.log_dir is None or is_url(context.log_dir):
        return ""
    task_id = member.facts.task_id
    try:
        text, changed_at = end_of_log(f"{context.log_dir.rstrip('/')}/{log_name(task_id)}", most_bytes)
    except OSError:
        return ""  # it wrote nothing, or lost the file: what its process printed last is known all the same
    _, separator, rest = text.rpartition(f"---- {shown(task_id)} run ")
    if separator:
        _, _, written = rest.partition("\n")
        return written if rest.startswith(f"{run_id} attempt {member.attempt} ") else ""
    return text if changed_at >= started else ""


@contextmanager
def written_to_task_log(
    member: Member, output: int, started: float | None, run_id: str, context: RunContext
) -> Iterator[TaskLog]:
    """Move what a process had printed to the log of its task; in that log the caller says what ended it.

    `output` is the file that it printed to. Of more than the log takes, its end is kept.
    """
    task_id, attempt = member.facts.task_id, member.attempt
    with task_log(task_id, context.log_dir, context.verbosity, run_id=run_id, attempt=attempt, started=started) as log:
        if context.log_dir is not None:
            _move(output, log)
        yield log


def _move(output: int, log: TaskLog) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    most = log.room - min(log.room // 2, ROOM_FOR_THE_END_BYTES)
    position, last = max(0, os.fstat(output).st_size - most), "\n"
    log.write(LEFT_OUT if position else "")
    while piece := os.pread(output, _CHUNK_BYTES, position):
        position += len(piece)
        text = decoder.decode(piece.replace(b"\0", b""))
        log.write(text)
        last = text[-1:] or last
    log.write(decoder.decode(b"", final=True) + ("" if last == "\n" else "\n"))
