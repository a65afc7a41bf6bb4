"""The command-line options of a task graph tool, and which executor they ask for (BEHAVIOUR L1 to L6).

`choose` is a pure function from options to a `Choice`; `cli_tools` makes the executor. All conflicts are found
before anything is made.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from overnight.errors import UsageError

EXECUTORS = ("sequential", "process-pool", "dask", "queue")
COMMANDS = ("run", "list", "status")
DASK_OPTIONS = {"dask_cluster_name": "--dask-cluster-name", "dask_cluster_config_file": "--dask-cluster-config-file"}


def add_arguments(
    parser: ArgumentParser, *, task_progress_mode: bool, default_task_status_dir: str | None, use_commands: bool
) -> None:
    """Add the two groups of L1 and L2 to a host tool's parser."""
    _add_executor_options(parser)
    mode = parser.add_argument_group("Execution Mode")
    if use_commands:
        mode.add_argument("command", nargs="?", choices=COMMANDS, default="run", help="what to do (default: run)")
    mode.add_argument("-t", "--task-ids", nargs="+", metavar="ID", help="only these tasks and what they depend on")
    mode.add_argument("--keep-going", action="store_true", help="go on with other tasks after a failure")
    mode.add_argument(
        "--fork-tasks", "--fork-task", "--fork", action="store_true", help="run each task in a process of its own"
    )
    if task_progress_mode:
        mode.add_argument("-f", "--force", action="store_true", help="run all tasks, whatever is recorded")
        mode.add_argument(
            "-d", "--task-status-dir", "--tsd", metavar="DIR", default=default_task_status_dir,
            help="where outcomes are recorded (default: %(default)s)",
        )  # fmt: skip


def _add_executor_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("Task Graph Executor")
    group.add_argument("-j", "--jobs", type=int, metavar="INT", help="number of workers; 1 runs in this process")
    group.add_argument(
        "--process-pool", "--pp", dest="use_process_pool", action="store_true", help="use a pool of local processes"
    )
    group.add_argument("-N", "--dask-cluster-name", "--dcn", metavar="NAME", help="use this configured Dask cluster")
    group.add_argument(
        "-c", "--dask-cluster-config-file", "--dccf", metavar="FILE", help="use the Dask cluster that FILE describes"
    )
    group.add_argument("--executor", choices=EXECUTORS, help="use this executor")
    group.add_argument("--redis-url", metavar="URL", help="use the queue on this server (or OVERNIGHT_REDIS_URL)")
    group.add_argument("--task-log-dir", metavar="DIR", help="where the logs of tasks go (default: ./.task-log)")


@dataclass(frozen=True, slots=True)
class Choice:
    """The executor that options ask for. `jobs` None is its default number of workers."""

    executor: str
    jobs: int | None
    redis_url: str | None = None
    dask_cluster_name: str | None = None
    dask_cluster_config_file: str | None = None


def selects_executor(options: Mapping[str, Any]) -> bool:
    """Tell whether an option names or implies an executor (L7)."""
    return bool(
        options.get("executor")
        or options.get("redis_url")
        or options.get("use_process_pool")
        or _given_dask_options(options)
    )


def choose(options: Mapping[str, Any], environ: Mapping[str, str]) -> Choice:
    """Return what the options ask for, in the order of L4; UsageError for a conflict (L5)."""
    refuse_conflicts(options)
    jobs, redis_url = options.get("jobs"), options.get("redis_url") or None
    executor = options.get("executor") or _implied(options)
    if executor == "queue":
        redis_url = redis_url or environ.get("OVERNIGHT_REDIS_URL") or None
    return Choice(
        executor,
        jobs,
        redis_url,
        options.get("dask_cluster_name"),
        options.get("dask_cluster_config_file"),
    )


def _implied(options: Mapping[str, Any]) -> str:
    if options.get("redis_url"):
        return "queue"
    if "jobs" not in options or options["jobs"] == 1:
        return "sequential"
    if options.get("use_process_pool"):
        return "process-pool"
    return "dask" if _given_dask_options(options) else "queue"


def refuse_conflicts(options: Mapping[str, Any]) -> None:
    """Raise UsageError with one sentence if the options contradict each other."""
    fault = _jobs_fault(options) or _dask_fault(options) or _redis_fault(options) or _executor_fault(options)
    if fault is not None:
        raise UsageError(fault)


def _jobs_fault(options: Mapping[str, Any]) -> str | None:
    jobs = options.get("jobs")
    if jobs is not None and not isinstance(jobs, int):
        return f"--jobs must be an integer, not {jobs!r}."
    return f"--jobs must be 1 or more, not {jobs}." if jobs is not None and jobs < 1 else None


def _dask_fault(options: Mapping[str, Any]) -> str | None:
    given = _given_dask_options(options)
    if not given:
        return None
    if len(given) == len(DASK_OPTIONS):
        return f"{' and '.join(given)} cannot be given together."
    if options.get("use_process_pool"):
        return f"{given[0]} cannot be given with --process-pool."
    if options.get("redis_url"):
        return f"{given[0]} cannot be given with --redis-url."
    if options.get("executor") is None and ("jobs" not in options or options["jobs"] == 1):
        return f"{given[0]} needs more than one job: give --jobs above 1, or --executor dask."
    return None


def _redis_fault(options: Mapping[str, Any]) -> str | None:
    if options.get("redis_url") and options.get("use_process_pool"):
        return "--redis-url cannot be given with --process-pool."
    return None


def _executor_fault(options: Mapping[str, Any]) -> str | None:
    executor = options.get("executor")
    if executor is None:
        return None
    if executor not in EXECUTORS:
        return f"Unknown executor {executor!r}; the known ones are {', '.join(EXECUTORS)}."
    selecting = [*(("dask", flag) for flag in _given_dask_options(options))]
    if options.get("use_process_pool"):
        selecting.append(("process-pool", "--process-pool"))
    if options.get("redis_url"):
        selecting.append(("queue", "--redis-url"))
    for selected, flag in selecting:
        if selected != executor:
            return f"--executor {executor} cannot be given with {flag}, which selects {selected}."
    jobs = options.get("jobs")
    if executor == "sequential" and jobs is not None and jobs > 1:
        return f"--executor sequential runs one task at a time; it cannot be given with --jobs {jobs}."
    return None


def _given_dask_options(options: Mapping[str, Any]) -> list[str]:
    return [flag for dest, flag in DASK_OPTIONS.items() if options.get(dest)]
