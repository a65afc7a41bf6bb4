"""Everything that a tool with a task graph needs on its command line (BEHAVIOUR L).

The tool builds a graph, adds the options of `TaskGraphCli.add_arguments` to its parser and hands graph and options to
`TaskGraphCli.process_graph`. Collaborators are looked up when they are called (L13); executors are imported when one
is made (P3).
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Generator, Iterable, Mapping
from types import ModuleType
from typing import Any

from overnight import cli_options
from overnight.cache import NO_TASK_CACHE, TaskCache
from overnight.errors import MissingExtra, TaskError, UnknownTask, UnknownTaskName, UsageError
from overnight.executor import TaskGraphExecutor
from overnight.graph import Task, TaskGraph
from overnight.inspection import decide
from overnight.naming import shown
from overnight.sequential_executor import SequentialExecutor
from overnight.status_table import print_status
from overnight.summary import RunSummary
from overnight.terminal_text import write_text

#: Options that name the executor and its size, whose meaning is in the `Choice`, and those that a namespace can only
#: hold because the host tool has options of these names.
_SELECTING = frozenset({
    "jobs", "executor", "redis_url", "use_process_pool", *cli_options.DASK_OPTIONS, "command", "task_ids", "workers",
    "max_workers", "task_cache", "force", "queue", "state_dir",
})  # fmt: skip


class TaskGraphCli:
    """Adds the options of a task graph tool, makes the executor that they ask for, and runs a graph with it."""

    @staticmethod
    def add_arguments(
        parser: ArgumentParser,
        *,
        task_progress_mode: bool = True,
        default_task_status_dir: str | None = "./.task-progress",
        use_commands: bool = True,
    ) -> None:
        """Add the groups "Task Graph Executor" and "Execution Mode" to the parser (L1 to L3)."""
        cli_options.add_arguments(
            parser,
            task_progress_mode=task_progress_mode,
            default_task_status_dir=default_task_status_dir,
            use_commands=use_commands,
        )

    @staticmethod
    def create_executor(task_cache: TaskCache | None = None, **kwargs: Any) -> TaskGraphExecutor:
        """Return the executor that the options ask for (L4); they may be a whole argparse namespace.

        Raises UsageError for options that contradict each other (L5), MissingExtra if a package is not installed.
        """
        choice = cli_options.choose(kwargs, os.environ)
        cache = NO_TASK_CACHE if task_cache is None else task_cache
        rest = {name: value for name, value in kwargs.items() if name not in _SELECTING}
        rest["force"] = bool(kwargs.get("force"))
        return _MAKERS[choice.executor](choice, cache, rest)

    @staticmethod
    def process_graph(task_graph: TaskGraph, *, task_progress_mode: bool = True, **kwargs: Any) -> bool:
        """Run, list or show the status of a graph as the options say; True if all went well (L7, L8)."""
        if kwargs.get("task_ids"):
            try:
                task_graph.prune(kwargs["task_ids"])
            except UnknownTask as error:
                raise UnknownTaskName(str(error)) from error
        task_cache = TaskCache.create(task_progress_mode=task_progress_mode, cache_dir=kwargs.get("task_status_dir"))
        command = kwargs.get("command") or "run"
        if command == "run":
            return _run(task_graph, task_cache, kwargs)
        if command in cli_options.COMMANDS:
            return task_graph_status(task_graph, task_cache, kwargs.get("verbose"))
        raise UsageError(f"Unknown command {command!r}; the known ones are {', '.join(cli_options.COMMANDS)}.")


def _run(task_graph: TaskGraph, task_cache: TaskCache, options: Mapping[str, Any]) -> bool:
    settings = dict(options)
    if len(task_graph) <= 1 and settings.get("jobs") is None and not cli_options.selects_executor(settings):
        settings["jobs"] = 1
    settings.pop("task_cache", None)
    with TaskGraphCli.create_executor(task_cache, **settings) as executor:
        succeeded = task_graph_run(task_graph, executor, keep_going=bool(settings.get("keep_going")))
    summary = getattr(executor, "summary", None)
    # A foreign executor has no summary, or one of its own making.
    return succeeded and (not isinstance(summary, RunSummary) or summary.ok)


def task_graph_run(
    task_graph: TaskGraph, executor: TaskGraphExecutor | None = None, *, keep_going: bool = False
) -> bool:
    """Run the graph; False iff a task failed. Without `keep_going` the first failed task's exception is raised (L9)."""
    results = task_graph_run_with_results(task_graph, executor, keep_going=keep_going)
    failures = sum(isinstance(result, BaseException) for result in results)
    return failures == 0


def task_graph_run_with_results(
    task_graph: TaskGraph,
    executor: TaskGraphExecutor | None = None,
    *,
    keep_going: bool = False,
    include_cached: bool = False,
) -> Generator[Any, None, None]:
    """Run the graph and yield results in the order of completion (L10).

    A failure is printed and its exception yielded if `keep_going`, otherwise raised once the run is torn down.
    `include_cached` gives the results of completed tasks too, first.
    """
    pairs = _executed(task_graph, SequentialExecutor() if executor is None else executor, include_cached=include_cached)
    try:
        for task, result in pairs:
            if isinstance(result, BaseException):
                if not keep_going:
                    raise _raisable(task, result)
                _print_failure(task, result)
            yield result
    finally:
        # A foreign executor may give a plain iterator, which has nothing to close.
        close = getattr(pairs, "close", None)
        if close is not None:
            close()


def _raisable(task: Task, error: BaseException) -> BaseException:
    """Return the exception that stands for a failure: a SystemExit would end the tool with the task's own status."""
    if not isinstance(error, SystemExit):
        return error
    failure = TaskError(f"Task {task.task_id!r} called sys.exit({error.code!r}).")
    failure.__cause__ = error
    return failure


def _executed(
    task_graph: TaskGraph, executor: TaskGraphExecutor, *, include_cached: bool
) -> Iterable[tuple[Task, Any]]:
    if not include_cached:
        return executor.execute(task_graph)
    # Only overnight's own executors know this keyword; a foreign one is asked for it only when it is wanted.
    execute: Any = executor.execute
    pairs: Iterable[tuple[Task, Any]] = execute(task_graph, include_cached=True)
    return pairs


def _print_failure(task: Task, error: BaseException) -> None:
    write_text(sys.stderr, f"Task {shown(task.task_id)} failed with:\n")
    sys.stderr.flush()
    write_text(sys.stdout, "".join(traceback.format_exception(error)))


def task_graph_all_done(task_graph: TaskGraph, task_cache: TaskCache) -> bool:
    """Tell whether no task of the graph must run (L11)."""
    return not decide(task_graph, task_cache).must_run


def task_graph_status(task_graph: TaskGraph, task_cache: TaskCache, verbose: int | None) -> bool:
    """Print the state of each task, with `verbose` also the tracebacks of failed ones; return True (L12)."""
    print_status(task_graph, decide(task_graph, task_cache), verbose=bool(verbose))
    return True


# Making executors.


def _make_sequential(_choice: cli_options.Choice, cache: TaskCache, rest: dict[str, Any]) -> TaskGraphExecutor:
    return SequentialExecutor(cache, **rest)


def _make_process_pool(choice: cli_options.Choice, cache: TaskCache, rest: dict[str, Any]) -> TaskGraphExecutor:
    module = _module_of_extra("overnight.process_pool_executor", "all")
    executor: TaskGraphExecutor = module.ProcessPoolTaskExecutor(task_cache=cache, max_workers=choice.jobs, **rest)
    return executor


def _make_dask(choice: cli_options.Choice, cache: TaskCache, rest: dict[str, Any]) -> TaskGraphExecutor:
    client = _module_of_extra("overnight.dask_cluster", "dask").make_client(
        name=choice.dask_cluster_name, config_file=choice.dask_cluster_config_file, workers=choice.jobs
    )
    module = _module_of_extra("overnight.dask_executor", "dask")
    executor: TaskGraphExecutor = module.DaskExecutor(client, cache, **rest)
    return executor


def _make_queue(choice: cli_options.Choice, cache: TaskCache, rest: dict[str, Any]) -> TaskGraphExecutor:
    module = _module_of_extra("overnight.queue_executor", "all")
    executor: TaskGraphExecutor = module.QueueExecutor(choice.redis_url, cache, workers=choice.jobs, **rest)
    return executor


_MAKERS = {
    "sequential": _make_sequential,
    "process-pool": _make_process_pool,
    "dask": _make_dask,
    "queue": _make_queue,
}


def _module_of_extra(name: str, extra: str) -> ModuleType:
    """Import a module that needs an optional package; MissingExtra says in one sentence what to install."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"This executor needs {error.name!r}, which is not installed: pip install 'overnight[{extra}]'."
        ) from error
