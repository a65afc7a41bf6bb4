"""One task of a run, for people and programs: what it is, how it went, where its record came from."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from overnight.certificates import DeathCertificate
from overnight.client import Client
from overnight.commands.causes import certificates_of, short_type
from overnight.commands.ending import failed_task, log_of
from overnight.commands.opening import index_of
from overnight.commands.running_log import running_attempt
from overnight.commands.screen import duration, moment, span
from overnight.commands.task_logs import last_of
from overnight.core.states import TaskState
from overnight.error_text import frames_of, without_last_output
from overnight.naming import shown
from overnight.store.records import RunRecord, TaskView

#: Of the last lines that are kept of an attempt, how many `status` shows; `logs` shows all.
_MOST_LAST_LINES = 10
_TOLD_AS_IT_IS = ("function", "attempt", "worker", "host")


def task_facts(client: Client, run: RunRecord, task_id: str) -> dict[str, Any]:
    """Return what is known of a task; times are seconds since the epoch, memory is in bytes. Raises UsageError."""
    structure = client.structure(run.run_id)
    number = index_of(client, run.run_id, task_id)
    task_id = structure.task_id(number)
    [view] = client.deployment.store.tasks(run.run_id, [number])
    facts: dict[str, Any] = {
        "run": run.run_id,
        "task": task_id,
        "state": view.state.name.lower(),
        "function": structure.function(number),
        "attempt": view.attempt,
        "dependencies": [structure.task_id(dependency) for dependency in structure.dependencies(number)],
        "skipped_for": None if view.cause is None else structure.task_id(view.cause),
        "log": log_of(run, task_id),
        "error": None,
        "record": _record(client, run, task_id) if view.state is TaskState.CACHED else None,
    }
    told = json.loads(view.facts) if view.facts else {}
    facts |= {name: told.get(name) for name in ("worker", "host", "started", "seconds", "peak_memory")}
    facts["running"] = _running(client, run, view)
    facts["last_lines"] = None
    last = last_of(facts["log"], run.run_id, task_id, view.attempt) if view.state is TaskState.CANCELLED else None
    if last is not None and view.facts is None:
        facts["started"], facts["last_lines"] = last
    certificates = certificates_of(client.deployment, run.run_id, number)
    facts["deaths"] = [{name: getattr(one, name) for name in (*one.__slots__, "started")} for one in certificates]
    if view.state is TaskState.FAILED or view.error is not None:
        failed = failed_task(client.deployment, run, view, task_id)
        facts["error"] = {"type": failed.type_name, "message": failed.message, "traceback": failed.traceback}
    return facts


def _running(client: Client, run: RunRecord, view: TaskView) -> dict[str, Any] | None:
    """Return who runs a task, and its last lines, as far as its worker has said."""
    found = running_attempt(client.deployment, run.run_id, view)
    if found is None:
        return None
    worker, now = found.worker, client.deployment.store.now()
    seconds = round(worker.seconds_since(worker.task_since or now + worker.skew, now), 3)
    facts = {"host": worker.host, "pid": worker.pid, "memory": worker.memory, "seconds": seconds}
    return {**facts, "last_lines": found.text}


def _record(client: Client, run: RunRecord, task_id: str) -> dict[str, Any] | None:
    """Return from which run a cached task's record is, and when that ended; None if it cannot be seen from here."""
    from overnight.cache import FileTaskCache
    from overnight.errors import Unreachable
    from overnight.flags import FoundFlag
    from overnight.task import Task

    if run.status_dir is None:
        return None
    task = Task(task_id)
    try:
        found = FileTaskCache(run.status_dir, keyring=client.deployment.keyring).read_flags([task]).get(task)
    except (OSError, Unreachable):
        return None
    return {"run": found.header.run_id, "finished": found.header.finished} if isinstance(found, FoundFlag) else None


def task_lines(facts: dict[str, Any]) -> list[str]:
    """Return what people read of `task_facts`."""
    lines = [f"Task {shown(str(facts['task']))}: {facts['state']}{told_of(facts['record'])}"]
    for name in (*_TOLD_AS_IT_IS, "started", "took", "peak memory", "log"):
        text = _text(name, facts)
        if text is not None:
            lines.append(f"  {name}: {shown(text)}")
    if facts["dependencies"]:
        lines.append(f"  needs: {', '.join(shown(name) for name in facts['dependencies'])}")
    if facts["skipped_for"] is not None:
        lines.append(f"  skipped, because this failed: {shown(facts['skipped_for'])}")
    if facts["running"] is not None:
        lines += _running_lines(facts["running"])
    elif facts["last_lines"]:
        lines += ["  it wrote last:", *_last_lines(facts["last_lines"])]
    for death in facts["deaths"]:
        lines += _death_lines(death)
    return [*lines, *_error_lines(facts)] if facts["error"] else lines


def _error_lines(facts: dict[str, Any]) -> list[str]:
    """Return what people read of the last error, without last output that stands with the death already, and without a
    traceback that has no frame: it says the message again."""
    error = facts["error"]
    has_tail = any(death["attempt"] == facts["attempt"] and death["tail"].strip() for death in facts["deaths"])
    message = without_last_output(error["message"]) if has_tail else error["message"]
    first, *more = message.splitlines() or [""]
    frames = frames_of(error["traceback"], error["message"]).rstrip().splitlines()
    return [
        f"  error: {shown(error['type'])}: {shown(first)}",
        *(f"    {shown(line)}" for line in [*more, *frames]),
    ]


def _running_lines(running: dict[str, Any]) -> list[str]:
    """Return what people read of the attempt that runs: where, for how long, its last lines."""
    memory = f", {running['memory'] / 1e6:.0f} MB" if running["memory"] else ""
    where = f"on {running['host']}, process {running['pid']}{memory}"
    return [f"  running for {duration(running['seconds'])} {shown(where)}", *_last_lines(running["last_lines"])]


def _last_lines(text: str) -> list[str]:
    return [f"    | {shown(line)}" for line in text.rstrip().splitlines()[-_MOST_LAST_LINES:]]


def _death_lines(death: dict[str, Any]) -> list[str]:
    """Return what people read of one failed attempt: what ended it, where, when, peak memory, last lines."""
    certificate = DeathCertificate(**{name: death[name] for name in DeathCertificate.__slots__})
    first = certificate.message.partition("\n")[0]
    place = f" ({certificate.place})" if certificate.place else ""
    lines = [
        f"attempt {certificate.attempt} ended by {certificate.ended_by}: {short_type(certificate)}: {first}{place}"
    ]
    when = [] if certificate.ended is None else [moment(certificate.ended)]
    when += [] if certificate.seconds is None else [f"after {span(certificate.seconds)}"]
    when += [f"on worker {certificate.worker}"] if certificate.worker else []
    when += [f"peak memory {certificate.peak_memory / 1e6:.0f} MB"] if certificate.peak_memory else []
    lines += [f"  {', '.join(when)}"] if when else []
    tail = certificate.tail.rstrip().splitlines()[-_MOST_LAST_LINES:]
    return [f"  {shown(line)}" for line in lines + [f"  | {line}" for line in tail]]


def _text(name: str, facts: dict[str, Any]) -> str | None:
    value = facts.get({"took": "seconds", "peak memory": "peak_memory"}.get(name, name))
    if value is None or (name in ("attempt", "peak memory") and not value):
        return None
    match name:
        case "started":
            return moment(value)
        case "took":
            return span(value)
        case "peak memory":
            return f"{value / 1e6:.0f} MB"
        case _:
            return str(value)


def told_of(record: dict[str, Any] | None) -> str:
    """Return the end of a sentence about a task whose record was there: from which run it is, and since when."""
    if record is None:
        return ""
    parts = [f"from run {shown(record['run'])}"] if record["run"] else []
    if record["finished"]:
        parts.append(f"recorded {_local(record['finished'])}")
    return ", " + ", ".join(parts) if parts else ""


def _local(moment_in_utc: str) -> str:
    """Return a header's time in this host's zone, as it is if it is no time."""
    try:
        return moment(datetime.fromisoformat(moment_in_utc).timestamp())
    except ValueError:
        return shown(moment_in_utc)
