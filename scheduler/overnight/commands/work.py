"""What a command line asks to be run: the graph, what of it is finished already, and how the rest is carried out.

The same target, parameters and task ids are the same command, whatever else is typed: it finds its records, and its
run while that is active. Arguments are no part of a record's identity, so other parameters have another directory.
Nothing here reaches a server; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from overnight.cache import NO_TASK_CACHE, FileTaskCache
from overnight.commands.suggestion import ending_about
from overnight.commands.target import Target, build_graph, parse_target, spelled_parameters
from overnight.config import DEFAULT_QUEUE, Settings
from overnight.errors import Unreachable, UsageError
from overnight.files import is_url, see_writable
from overnight.graph import TaskGraph, missing_dependencies
from overnight.inspection import Decisions, decide
from overnight.logging import ensure_log_dir
from overnight.naming import cut_task_id, shown
from overnight.notices import Notices
from overnight.preparation import all_descs
from overnight.run_key import RunOptions
from overnight.state_dir import make_private, prepare_state_dir, see_out_of_reach
from overnight.task import Task, TaskDesc

FORCED = "forced (-f)"
#: By so much the clock of a file server may differ before it is told.
MOST_SKEW_SECONDS = 1.0
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST_NAME = 60
_IN_MEMORY = "memory://"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What was typed. `jobs` None means the default number of local workers."""

    target: str
    parameters: Sequence[str] = ()
    task_ids: Sequence[str] = ()
    jobs: int | None = None
    queue: str = DEFAULT_QUEUE
    keep_going: bool = False
    weight: float = 1.0
    force: bool = False
    status_dir: str | None = None
    log_dir: str | None = None
    verbosity: int = 0
    notices: Notices = field(default_factory=Notices)


class Work:
    """A graph that is fit to run. `decisions` say what must run and why."""

    def __init__(self, request: Request, settings: Settings) -> None:
        """Build the graph and read its records. Raises UsageError, GraphError, Unreachable (remote records)."""
        target = parse_target(request.target)
        if settings.state_dir.exists() and not settings.state_dir.is_dir():
            raise UsageError(f"The state directory {shown(str(settings.state_dir))} is not a directory.")
        for what, place in (("status", request.status_dir), ("log", request.log_dir)):
            if place is not None and place.startswith(_IN_MEMORY):
                raise UsageError(f"The {what} directory {place} does not outlive this process: give a directory.")
        self.request = request
        self.settings = settings
        self.name = _typed(target)
        self.graph = _pruned(build_graph(target, request.parameters), request.task_ids)
        self.graph.check()
        missing_dependencies(self.graph, ())
        self._parameters = spelled_parameters(target, request.parameters)
        self.directory_name = _directory_name(self.name, self._parameters, settings)
        self.status_dir = request.status_dir or str(settings.state_dir.absolute() / "status" / self.directory_name)
        self.log_dir = request.log_dir or str(settings.state_dir.absolute() / "task-logs" / self.directory_name)
        self.cache = FileTaskCache(self.status_dir)
        self.decisions = self._decide(())

    def _decide(self, own_runs: Collection[str]) -> Decisions:
        """Decide what must run. In a forced run only what `own_runs` computed is finished."""
        if self.request.force and not own_runs:
            return decide(self.graph, NO_TASK_CACHE)
        decisions = decide(self.graph, self.cache)
        for task in decisions.completed if self.request.force else ():
            header = decisions.header(task)
            if not decisions.runs(task) and (header is None or header.run_id not in own_runs):
                decisions.also_run(task, FORCED)
        return decisions

    def read_again(self, own_runs: Collection[str]) -> None:
        """Read the records anew, after the server has lost the runs that this command had put in place.

        The cache stays, which has warned of records that it rejects.
        """
        self.decisions = self._decide(own_runs)

    @property
    def descs(self) -> list[TaskDesc]:
        """The tasks in insertion order, which is the order of their indices in a run."""
        return all_descs(self.graph)

    @property
    def to_run(self) -> list[tuple[Task, str]]:
        """The tasks that must run, in insertion order, each with the reason."""
        reasons = self.decisions.must_run
        return [(task, FORCED if self.request.force else reasons[task]) for task in self.graph.tasks if task in reasons]

    @property
    def options(self) -> RunOptions:
        """How the run is carried out."""
        return RunOptions(
            name=self.name,
            command=self._command(),
            queue=self.request.queue,
            status_dir=self.status_dir if is_url(self.status_dir) else os.path.realpath(self.status_dir),
            log_dir=self.log_dir,
            verbosity=self.request.verbosity,
            fail_fast=not self.request.keep_going,
            weight=self.request.weight,
            force=self.request.force,
            resource_limits=self.settings.resource_limits,
            keep_seconds=self.settings.keep_seconds,
        )

    def make_directories(self) -> None:
        """Make the directories for records and logs. Raises UsageError for one that cannot be made or recorded."""
        _ = self.options  # raises for a name that no record can hold, before anything is made
        prepare_state_dir(self.settings.state_dir)
        if not is_url(self.status_dir):
            _made("status directory", self.status_dir)
            _warn_if_unfit(self.status_dir)
        try:
            self.log_dir = ensure_log_dir(task_log_dir=self.log_dir)
        except OSError as error:
            if isinstance(error, Unreachable):
                raise
            raise UsageError(
                f"The log directory {shown(self.log_dir)} cannot be used: {error.strerror}. Give one that can be "
                "written with --task-log-dir."
            ) from error

    def _command(self) -> str:
        parameters = [word for item in sorted(self._parameters.items()) for word in ("-p", "=".join(item))]
        ids = [word for task_id in sorted(self.request.task_ids) for word in ("-t", task_id)]
        return shlex.join(["overnight", "run", self.name, *parameters, *ids])


def _pruned(graph: TaskGraph, task_ids: Sequence[str]) -> TaskGraph:
    for task_id in task_ids:
        if not graph.has_task(Task(cut_task_id(task_id))):
            known = [task.task_id for task in graph.tasks]
            raise UsageError(f"No task {task_id!r} is in the graph{ending_about(task_id, known)}")
    if task_ids:
        graph.prune(list(task_ids))
    return graph


def _typed(target: Target) -> str:
    """Return one spelling for all ways to type a target in this directory."""
    place = os.path.relpath(target.place) if target.is_file else target.place
    return f"{place}:{target.name}"


def _directory_name(name: str, parameters: Mapping[str, str], settings: Settings) -> str:
    """Return a name that is the same for the same command, also when state directory and project move together."""
    here = os.path.relpath(Path.cwd(), settings.state_dir.absolute())
    digest = hashlib.sha256(json.dumps([here, name, sorted(parameters.items())]).encode("ascii")).hexdigest()
    return f"{_NOT_IN_NAME.sub('_', name).lstrip('._-')[-_LONGEST_NAME:]}-{digest[:12]}"


def _warn_if_unfit(status_dir: str) -> None:
    """Warn of a status directory that cannot be written to, or whose file server has another time."""
    try:
        skew = see_writable(status_dir)
    except OSError as error:
        _logger.warning(
            "The status directory %s cannot be written to (%s): the run goes on, and what it computes runs again next "
            "time.",
            shown(status_dir),
            error.strerror or error,
        )
        return
    if abs(skew) > MOST_SKEW_SECONDS:
        _logger.warning(
            "The clock of the file server of %s is %.0f s %s this host's: files may look newer or older than they are, "
            "and by their times overnight decides what must run. Set both clocks right.",
            shown(status_dir),
            abs(skew),
            "ahead of" if skew > 0 else "behind",
        )


def _made(what: str, path: str) -> None:
    try:
        make_private(Path(path).absolute())
        see_out_of_reach(Path(path).resolve())
    except OSError as error:
        raise UsageError(f"The {what} {shown(path)} cannot be made: {error.strerror}.") from error
