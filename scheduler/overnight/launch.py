"""Put a graph's run in place: make it, or attach to the run that the same command started before.

Flags are read first, Redis second: what the cache decides to be completed enters the run as adopted results, and the
rest as tasks to run. The key of a run identifies the command and the graph, so that a client that was killed finds
its run again; the place (the status directory) is used by one active run at a time.
"""

from __future__ import annotations

import math
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from overnight import failpoints
from overnight.adoption import adopted_results, fitting
from overnight.cache import TaskCache
from overnight.config import Settings
from overnight.core.events import TaskRules
from overnight.core.rulebook import demand_possible
from overnight.core.states import RunPhase, TaskState
from overnight.earlier_run import wait_for_end
from overnight.errors import AddedMeanwhile, Refused, UnknownRun, UnreadableRun, UsageError
from overnight.flag_files import remove_abandoned
from overnight.graph import TaskGraph
from overnight.hints import hint
from overnight.inspection import Decisions, decide
from overnight.keyring import Keyring
from overnight.messages import RunContext, StoredResult
from overnight.naming import shown
from overnight.run_key import RunOptions, graph_key, place_of, same_command
from overnight.state_dir import make_private, see_out_of_reach
from overnight.store.ports import ReadingStore, SubmittingStore
from overnight.store.records import Opening, Request, RunRecord
from overnight.store.server_check import require_key
from overnight.structure import Structure
from overnight.submission import Submission
from overnight.surroundings import current_umask, import_paths, login_name, passed_environment
from overnight.task import Task, TaskDesc
from overnight.wire import PROTOCOL

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
#: Large results without a status directory, below the state directory.
BLOBS = "blobs"


@dataclass(frozen=True, slots=True)
class Launched:
    """A run in place. `submission` knows its tasks and takes more; `attached`: it was there already."""

    run: RunRecord
    submission: Submission
    attached: bool


class LaunchStore(SubmittingStore, ReadingStore, Protocol):
    """Both roles that a client plays."""


def new_run_id() -> str:
    """Return a fresh id: the time for people, and enough random bits that no two runs share one."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(6)


def launch(
    store: LaunchStore,
    descs: Sequence[TaskDesc],
    decisions: Decisions | None,
    cache: TaskCache,
    options: RunOptions,
    settings: Settings,
    keyring: Keyring,
    stop: threading.Event | None = None,
    key: str | None = None,
) -> Launched:
    """Make the run of a whole graph, given in its insertion order, or attach to it.

    `decisions` say which tasks are completed (None: none is); `key` is its `graph_key` where the caller has it.
    Raises InvalidTask above a resource limit, Refused if the status directory is in use by another run, StillEnding if
    `stop` is set while an earlier run of this command is ending, which is waited for, and what the store raises.
    """

    def adopted() -> Mapping[Task, StoredResult]:
        return adopted_results(_up_to_date(decisions, descs, cache), cache) if decisions else {}

    def reasons() -> Mapping[Task, str]:
        # In a forced run the reason is that it is forced, which its key tells.
        return {} if decisions is None or options.force else _up_to_date(decisions, descs, cache).must_run

    key = key or graph_key(descs, options)
    return put_in_place(store, descs, adopted, key, options, settings, keyring, reasons=reasons, stop=stop)


def put_in_place(
    store: LaunchStore,
    descs: Sequence[TaskDesc],
    adopted: Callable[[], Mapping[Task, StoredResult]],
    key: str,
    options: RunOptions,
    settings: Settings,
    keyring: Keyring,
    *,
    reasons: Callable[[], Mapping[Task, str]] = dict,
    stop: threading.Event | None = None,
) -> Launched:
    """Make the run of these tasks under `key`, or attach to the one that has it: it then goes on if it was paused,
    is given what it lacks, and runs what was cancelled in it. `adopted`, and then `reasons` (why tasks must run, for
    people), are called when no other run can write records any more. Errors: `launch`."""
    require_key(settings.redis_url, keyring)
    check_resources(descs, options)
    _prepare_directories(options, settings)
    while True:
        record = _new_record(len(descs), key, options)
        failpoints.reach("client.before_submit")
        opened = store.open_run(record, context_of(options, settings).sealed(record.run_id, keyring))
        is_ending = opened.run.phase is RunPhase.CANCELLING and same_command(opened.run.key, key)
        if opened.opening is Opening.BUSY and not is_ending:
            raise _in_use(opened.run, options, settings)
        if not is_ending:
            break
        wait_for_end(store, opened.run.run_id, settings, stop)
    run, attached = opened.run, opened.opening is Opening.ATTACHED
    if attached and run.phase is not RunPhase.SUBMITTING:
        return Launched(run, _joined(store, run, descs, adopted, reasons, keyring), attached=True)
    try:
        submission = _holding(store, run.run_id, descs, adopted, reasons, keyring, attached=attached)
        store.activate(run.run_id, len(submission.tasks))
    except UnknownRun:  # the server has lost the run, or a part of it, while it was put in place
        return put_in_place(store, descs, adopted, key, options, settings, keyring, reasons=reasons, stop=stop)
    failpoints.reach("client.after_submit")
    return Launched(store.run(run.run_id), submission, attached)


def _holding(
    store: LaunchStore,
    run_id: str,
    descs: Sequence[TaskDesc],
    adopted: Callable[[], Mapping[Task, StoredResult]],
    reasons: Callable[[], Mapping[Task, str]],
    keyring: Keyring,
    *,
    attached: bool,
) -> Submission:
    """Have a run hold all of these tasks, and return its submission.

    One that was there already may hold other tasks, or those in another order: a client that goes on without what has
    failed asks for fewer. It may also be given tasks by two clients at once, of which one is heard.
    """
    if not attached:
        submission = Submission(store, run_id, keyring)
        with suppress(AddedMeanwhile):
            submission.add(descs, adopted(), reasons())
            return submission
    while True:
        submission = submission_of(store, run_id, keyring)
        missing = [desc for desc in descs if desc.task not in submission.index]
        if not missing:
            return submission
        with suppress(AddedMeanwhile):
            submission.add(missing, fitting(store, run_id, submission.index, missing, adopted()), reasons())


def _joined(
    store: LaunchStore,
    run: RunRecord,
    descs: Sequence[TaskDesc],
    adopted: Callable[[], Mapping[Task, StoredResult]],
    reasons: Callable[[], Mapping[Task, str]],
    keyring: Keyring,
) -> Submission:
    """Have a run that is in place carry out all of these tasks, and return its submission."""
    submission = _holding(store, run.run_id, descs, adopted, reasons, keyring, attached=True)
    # A run that was cancelled and reopened by a retry of some tasks holds the others as they were.
    codes = store.states(run.run_id)[::2]
    cancelled = [task for task, code in enumerate(codes) if code == TaskState.CANCELLED]
    if cancelled:
        store.request(run.run_id, Request.RETRY, cancelled)
    if run.paused:
        store.request(run.run_id, Request.RESUME)
    return submission


def submission_of(store: LaunchStore, run_id: str, keyring: Keyring) -> Submission:
    """Return the submission of a run that is in place: it knows the tasks that the run holds.

    Raises UnreadableRun where the server has lost some of their names: nothing fits behind them.
    """
    added, specs = store.run(run_id).added, store.specs(run_id)
    structure = Structure(run_id, specs, keyring)
    if not structure.holds(added):
        found = f"the server names {len(list(structure.ids()))} of its {added} tasks"
        raise UnreadableRun(f"Run {run_id} cannot be read: {found}. Cancel it, and give the command again.")
    submission = Submission(store, run_id, keyring)
    submission.known([Task(task_id) for task_id in structure.ids()], specs)
    return submission


def check_resources(descs: Sequence[TaskDesc], options: RunOptions) -> None:
    """Raise InvalidTask for a task that needs more of a resource than there is (O6), UsageError for no weight."""
    if not 0 < options.weight < math.inf:
        raise UsageError(f"The weight of a run must be a number above 0, not {options.weight!r}.")
    needs = {desc.options.resources: desc.task for desc in reversed(descs)} if options.resource_limits else {}
    for resources, task in needs.items():
        rules = TaskRules(resources=tuple(resources))
        demand_possible(rules, options.resource_limits, f"Task {task.task_id!r}")


def _up_to_date(decisions: Decisions, descs: Sequence[TaskDesc], cache: TaskCache) -> Decisions:
    """Decide again if a run that ended in the meantime has recorded what was to run: it does not run twice."""
    if not decisions.outdated():
        return decisions
    graph = TaskGraph()
    graph.add_tasks(descs)
    return decide(graph, cache)


def _prepare_directories(options: RunOptions, settings: Settings) -> None:
    """Make the directories that workers write to: a worker takes one that is missing for one that it cannot see."""
    with suppress(OSError):  # without it large results go through Redis
        (settings.state_dir / BLOBS).mkdir(mode=0o700, exist_ok=True)
    if options.status_dir is None or "://" in options.status_dir:
        return
    try:
        make_private(Path(options.status_dir))
        see_out_of_reach(Path(options.status_dir).resolve())
        remove_abandoned(options.status_dir)
    except OSError as error:
        raise UsageError(
            f"The status directory {shown(options.status_dir)} cannot be made: {error.strerror}. "
            "Give a directory that can be written with -d."
        ) from error


def context_of(options: RunOptions, settings: Settings) -> RunContext:
    """Return this process's surroundings as the run's tasks will find them (B21)."""
    return RunContext(
        directory=str(Path.cwd()),
        umask=current_umask(),
        environment=passed_environment(also=options.pass_environment, drop=options.drop_environment),
        import_paths=import_paths(),
        log_dir=options.log_dir,
        verbosity=options.verbosity,
        status_dir=options.status_dir,
        blob_dir=str(settings.state_dir.absolute() / BLOBS),
        fork_tasks=options.fork_tasks,
    )


def _new_record(total: int, key: str, options: RunOptions) -> RunRecord:
    host = socket.gethostname()
    return RunRecord(
        run_id=new_run_id(),
        name=options.name,
        key=key,
        place=place_of(key, options),
        owner=f"{login_name()}@{host}",
        host=host,
        python=PYTHON,
        protocol=PROTOCOL,
        total=total,
        queue=options.queue,
        command=options.command,
        status_dir=options.status_dir,
        log_dir=options.log_dir,
        fail_fast=options.fail_fast,
        keep_seconds=options.keep_seconds,
        resource_limits=options.resource_limits,
        weight=options.weight,
    )


def _in_use(run: RunRecord, options: RunOptions, settings: Settings) -> Refused:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.created_at))
    what, else_ = "This command", ""
    if options.status_dir is not None:
        what, else_ = f"The status directory {shown(options.status_dir)}", ", or give another directory with -d"
    follow, cancel = (hint(settings, verb, run.run_id) for verb in ("follow", "cancel"))
    step = f": wait for it ({follow}) or stop it ({cancel})"
    if run.phase is RunPhase.CANCELLING:
        step = f", which is being cancelled: type this again when it has ended ({follow})"
    return Refused(f"{what} is in use by run {run.run_id} ({shown(run.name)}) since {since}{step}{else_}.")
