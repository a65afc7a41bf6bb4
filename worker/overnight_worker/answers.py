"""What the child's frames and the child's end say about a task, in the words of records."""

from __future__ import annotations

import time

from overnight.certificates import BY_TIME_LIMIT, LONGEST_TAIL_BYTES
from overnight.errors import TaskDied, TaskTimedOut
from overnight.files import is_url
from overnight.log_files import end_of_log
from overnight.logging import task_log
from overnight.messages import RunContext, StoredError
from overnight.naming import log_name, shown
from overnight_worker.batch import Ended, Member
from overnight_worker.death import Death
from overnight_worker.frames import Frame, Kind, success_of
from overnight_worker.limits import Verdict
from overnight_worker.report import digest_of, failure


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


def note_death(member: Member, ended: Ended, death: Death, run_id: str, context: RunContext) -> None:
    """Note with the outcome what ended it and what it had written last; tell of the death in the log of the task."""
    ended.ended_by = death.ended_by() if ended.died else BY_TIME_LIMIT
    ended.tail = tail_of_log(member, run_id, context, ended.started, LONGEST_TAIL_BYTES) + death.last_words
    write_to_task_log(member, death, run_id, context)


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


def write_to_task_log(member: Member, death: Death, run_id: str, context: RunContext) -> None:
    """Write the reason of a death, and what the process printed last, to the log of the task (N5)."""
    if context.log_dir is None:
        return
    task_id = member.facts.task_id
    with task_log(task_id, context.log_dir, context.verbosity, run_id=run_id, attempt=member.attempt) as log:
        log.write(f"{death.last_words}\n" if death.last_words else "")
        log.write(f"{shown(task_id)}: the process of the task {death.sentence()}\n")
